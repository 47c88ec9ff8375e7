"""Kedro's configuration loader with the rules of this project for environments, `--params` and errors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kedro.config import MissingConfigException, OmegaConfigLoader
from omegaconf import OmegaConf
from omegaconf.errors import ConfigTypeError

from hyperformer.core.errors import first_line
from hyperformer.settings import ConfigurationError
from pipelines.config_files import Files, check_duplicates, merge, parse_file, reference_errors

OTHER_FILES = ("dvc", "logging", "mlflow", "spark")
"""Beginnings of the names of YAML files that Kedro's plugins and DVC read in the folder of an environment."""
SUFFIXES = (".yml", ".yaml", ".json")


class ConfigLoader(OmegaConfigLoader):
    r"""Configuration loader that applies `--params`, setting by setting, after environments have been merged.

    A block of an environment replaces the same block of base. Kedro's loader merges `--params` into the environment
    first, so that a single setting would replace the whole block of base. References such as `${seed}` are resolved
    once, after all of this, so that `\${` is a literal `${` wherever it is written. The root of the catalog,
    `globals:data`, is `data` in base and local, and `data/<env>` in every other environment, so that only base and
    local share data.
    """

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Return the configuration of a kind, such as `parameters` or `catalog`.

        Raises:
            ConfigurationError: A file or folder is missing or cannot be read, two files set the same key, or a
                reference cannot be resolved.
        """
        if key == "globals":
            named = self.env not in (None, self.base_env, self.default_run_env)
            return {"data": f"data/{self.env}" if named else "data"}
        try:
            return super().__getitem__(key)
        except MissingConfigException as error:
            if key == "credentials":  # they are optional: Kedro catches this error
                raise
            raise ConfigurationError(
                f"neither {self.base_env!r} nor {self.env or self.default_run_env!r} in {self.conf_source} has a "
                f"{key}.yml; expected one. Add the file, or use another folder (--conf-source)."
            ) from error

    def _read_dir_configs(
        self,
        conf_path: str,
        patterns: Iterable[str],
        key: str,
        processed_files: set[Path],
        read_environment_variables: bool | None = False,
    ) -> Files:
        """Parse the files of one kind in the folder of an environment, in the order of their names."""
        if not self._fs.isdir(conf_path):
            raise ConfigurationError(
                f"the folder {conf_path} does not exist; expected the configuration of an environment. Create it, or "
                "use another environment (--env) or configuration (--conf-source)."
            )
        if key == "parameters":
            self._check_file_names(conf_path)
        names = {name for pattern in patterns for name in self._fs.glob(f"{Path(conf_path).as_posix()}/{pattern}")}
        configs = {}
        for file in sorted(Path(name) for name in names if not (self.ignore_hidden and self._is_hidden(name))):
            if file.suffix in SUFFIXES:
                configs[file] = self._parse(file)
                if read_environment_variables:
                    with reference_errors({file: configs[file]}):
                        self._resolve_environment_variables(configs[file])
        processed_files.update(configs)
        check_duplicates(configs)
        return configs

    def _check_file_names(self, conf_path: str) -> None:
        """Refuse a YAML file of an environment that would be ignored because of its name."""
        known = (*self.config_patterns, *OTHER_FILES)
        for file in sorted(Path(name) for name in self._fs.ls(conf_path, detail=False)):
            if file.suffix in SUFFIXES and not file.name.startswith((*known, ".")):
                raise ConfigurationError(
                    f"{file} is never read; expected a name that begins with {', '.join(sorted(known))}. Rename it, "
                    f"for example to parameters_{file.name}."
                )

    def _parse(self, file: Path) -> Any:
        try:
            content = self._fs.cat_file(file.as_posix())
        except FileNotFoundError:
            raise ConfigurationError(f"{file} is a broken link; expected a YAML file. Fix or remove it.") from None
        except IsADirectoryError:
            raise ConfigurationError(f"{file} is a folder; expected a YAML file. Rename or remove it.") from None
        config = parse_file(file, content)
        for key in config:
            if not isinstance(key, str):
                kind = type(key).__name__
                raise ConfigurationError(f"{file} has the key {key!r}, a YAML {kind}; expected a name. Quote it.")
        return config

    def _merge_and_resolve(self, key: str, config_per_file: Files) -> Any:
        with reference_errors(config_per_file):
            return super()._merge_and_resolve(key, config_per_file)

    def _resolve_from_raw_config(  # type: ignore[override]
        self, key: str, base_configs: Files, env_configs: Files, *paths: Any
    ) -> dict[str, Any]:
        if key != "parameters" or not (base_configs or env_configs):
            return super()._resolve_from_raw_config(key, base_configs, env_configs, *paths)
        blocks = {**merge(base_configs.values()), **merge(env_configs.values())}
        overrides = self.runtime_params or {}
        sources = {**base_configs, **env_configs, "--params": overrides}
        try:
            with reference_errors(sources):
                merged = OmegaConf.to_container(OmegaConf.merge(blocks, overrides), resolve=True)
        except ConfigTypeError as error:
            raise ConfigurationError(
                f"--params replaces a list by a mapping, or a mapping by a list ({first_line(error)}); expected a "
                "value of the same type. Change the value."
            ) from None
        return dict(merged)  # type: ignore[arg-type]
