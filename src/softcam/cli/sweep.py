"""`softcam sweep`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from softcam.cli.console import say, show, show_json, show_table

if TYPE_CHECKING:
    from softcam.sweep import SearchResult, SweepResult
    from softcam.sweep.places import Place
    from softcam.training import Recipe

SUMMARY = "Choose what to train on validation data: the sparsest maps, or the most local ones, that keep the AUROC"
EXAMPLES = """\
  softcam sweep --config elpv-demo --out sweep                          (strengths of the penalty)
  softcam sweep --config elpv-demo --l1 1e-4 1e-3 --l2 0 1e-3 --jobs 2 --out sweep
  softcam sweep --config my-recipe.yaml --l1 1e-5 1e-3 --at pooling 16 --trials 24 --out sweep
  softcam sweep --config my-recipe.yaml --at pooling 16 8 16+32 --out places   (places alone, against the black box)
  softcam sweep --config elpv-demo --at all --out places
"""

ALL = "all"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--config", type=str, required=True, help="recipe: a YAML file, or the name of a built-in one")
    parser.add_argument("--data", type=str, default=None, help="manifest, instead of the recipe's data.source")
    parser.add_argument(
        "--set", type=str, nargs="+", default=(), help="values to replace in the recipe, each as key=value"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the runs, the table, the picture and what was chosen"
    )
    parser.add_argument("--l1", type=float, nargs="+", default=(), help="strengths of the absolute values; 0 is added")
    parser.add_argument("--l2", type=float, nargs="+", default=(), help="strengths of the Euclidean norm")
    parser.add_argument(
        "--at",
        type=str,
        nargs="+",
        default=(),
        help="places: pooling, a stride, a module, or several joined by +. Without any other value to try, the most "
        "local place that keeps the black box's AUROC is looked for, among all with --at all",
    )
    parser.add_argument("--map-stride", type=int, nargs="+", default=(), help="input pixels per cell, by dilation")
    parser.add_argument("--backbone", type=str, nargs="+", default=(), help="timm:<model> or torchvision:<model>")
    parser.add_argument(
        "--trials", type=int, default=None, help="models that optuna chooses, instead of each value with each"
    )
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, which share the cores")
    parser.add_argument("--margin", type=float, default=0.02, help="loss of AUROC that is accepted")
    parser.add_argument(
        "--sparsity", choices=("gini", "near_zero_share"), default="gini", help="what says how sparse maps are"
    )
    parser.add_argument("--located", type=int, default=None, help="images on which maps are measured")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of images and of optuna's draws")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(options: Any) -> int:
    """Train and measure, print the table and what the rule chooses."""
    from softcam.training import change_recipe, read_recipe

    changes = () if options.data is None else (f"data.source={json.dumps(options.data)}",)
    recipe = change_recipe(read_recipe(options.config), (*changes, *options.set))
    tried = (*options.l1, *options.l2, *options.map_stride, *options.backbone)
    places_alone = bool(options.at) and not tried and options.trials is None
    result = (_sweep if places_alone else _search)(recipe, options)
    if options.json:
        show_json(result.to_dict())
    else:
        table = result.table()
        hidden = ("seconds", "modules", "shares", "not_inferior" if places_alone else "map_stride")
        names = [name for name in table.columns if name not in hidden]
        show_table(names, [tuple(_show(row[name]) for name in names) for _, row in table.iterrows()])
        show(str(result))
    say(f"picture: {options.out / 'sweep.png'}")
    return 0


def _sweep(recipe: Recipe, options: Any) -> SweepResult:
    from softcam.sweep import SweepSettings, sweep, write_sweep

    places = None if options.at == [ALL] else tuple(_parse_places(options.at))
    located = SweepSettings.located if options.located is None else options.located
    settings = SweepSettings(places=places, margin=options.margin, located=located, seed=options.seed)
    result = sweep(recipe, options.out, settings=settings, say=say)
    write_sweep(result, options.out)
    return result


def _search(recipe: Recipe, options: Any) -> SearchResult:
    from softcam.sweep import SearchSettings, Space, search, write_search

    space = Space(
        l1=tuple(options.l1),
        l2=tuple(options.l2),
        at=tuple(_parse_places(options.at)),
        map_strides=tuple(options.map_stride),
        backbones=tuple(options.backbone),
    )
    settings = SearchSettings(
        margin=options.margin,
        sparsity=options.sparsity,
        trials=options.trials,
        located=SearchSettings.located if options.located is None else options.located,
        seed=options.seed,
        jobs=options.jobs,
    )
    result = search(recipe, options.out, space=space, settings=settings, say=say)
    write_search(result, options.out)
    if result.chosen is not None:
        say(f"chosen: {options.out / 'recipe.yaml'} and {options.out / 'model'}")
    return result


def _parse_places(texts: Iterable[str]) -> Iterable[Place]:
    from softcam.sweep.places import parse_place

    return map(parse_place, texts)


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
