"""Kedro's configuration loader with the rules of this project for environments, `--params` and errors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kedro.config import MissingConfigException, OmegaConfigLoader
from omegaconf import OmegaConf

from hyperformer.settings import ConfigurationError
from hyperformer.settings.merge import NOT_INHERITED, Layer, leave_out, merge_settings
from pipelines.config_files import Files, check_duplicates, parse_file, reference_errors, to_layer

OTHER_FILES = ("dvc", "logging", "mlflow", "spark")
"""Beginnings of the names of YAML files that Kedro's plugins and DVC read in the folder of an environment."""
SUFFIXES = (".yml", ".yaml", ".json")


class ConfigLoader(OmegaConfigLoader):
    r"""Configuration loader that merges the settings of several sources, key by key.

    The sources are, in this order: the defaults of the library, base, the preset of the backbone, the environment,
    `--params`. An environment does not inherit the settings of base in `NOT_INHERITED`. References such as `${seed}`
    are resolved once, after all of this, so that `\${` is a literal `${` wherever it is written. After `parameters` is
    read, `origins` has the source of each setting. The root of the catalog, `globals:data`, is `data` in base and
    local, and `data/<env>` in every other environment, so that only base and local share data.
    """

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Return the configuration of a kind, such as `parameters` or `catalog`.

        Raises:
            ConfigurationError: A file or folder is missing or cannot be read, two files set the same key, or a
                reference cannot be resolved.
        """
        if key == "globals":
            return {"data": f"data/{self.env}" if self._is_named else "data"}
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
        base, env, params = to_layer(base_configs), to_layer(env_configs), {"--params": self.runtime_params or {}}
        if self._is_named:
            before, after = [leave_out(base, NOT_INHERITED)], [env, params]
            if not any("tasks" in settings for settings in (*env.values(), *params.values())):
                self._check_tasks(base)
        else:
            replaced = ["tasks"] if any("tasks" in settings for settings in env.values()) else []
            before, after = [], [leave_out(base, replaced), env, params]
        with reference_errors({**base_configs, **env_configs, **params}):
            tree, self.origins = merge_settings(before, after, _resolve_backbone)
            return OmegaConf.to_container(OmegaConf.create(tree), resolve=True)  # type: ignore[return-value]

    def _check_tasks(self, base: Layer) -> None:
        """Refuse an environment without tasks, if base has some: they are not inherited."""
        if any("tasks" in settings for settings in base.values()):
            folder = f"{self.conf_source}/{self.env}"
            raise ConfigurationError(
                f"the files of {folder} set no `tasks`; expected a block for each task, because the tasks of "
                f"{self.base_env} are not inherited. Add `tasks` to a file such as {folder}/parameters_tasks.yml."
            )

    @property
    def _is_named(self) -> bool:
        """Return whether the environment is neither base nor local."""
        return self.env not in (None, self.base_env, self.default_run_env)


def _resolve_backbone(tree: dict[str, Any]) -> dict[str, Any]:
    """Resolve the references in the settings of the backbone, and leave out all other blocks."""
    config = OmegaConf.create(tree)
    backbone = config.get("backbone")
    resolved = OmegaConf.to_container(backbone, resolve=True) if OmegaConf.is_config(backbone) else backbone
    return {"preset": config.get("preset"), "backbone": resolved}
