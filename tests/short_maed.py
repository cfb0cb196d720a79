"""`maed`, but short: what tests run in the place of the program, so that the commands of pages end within a minute.

Settings that decide how long a command takes are added behind those that the command gives; all else is as written.
"""

from __future__ import annotations

import sys

from maed.cli import build_parser, main

LITTLE = {
    "data.limit": "2000",  # a page asks for a thousand labels
    "autoencoder.steps": "12",
    "autoencoder.validate_every": "6",
    "autoencoder.batch_size": "16",
    "similarity.draws": "1024",
    "similarity.until": "draws",
    "embedding.force": "true",
    "evaluation.probe_steps": "5",
    "perceiver.latents": "4",
    "perceiver.latent_width": "16",
    "perceiver.layers": "1",
    "train.steps": "4",
    "train.batch_size": "16",
    "train.validate_every": "2",
    "train.tune": "null",
    "train.tune_steps": "null",
    "report.signals": "1",
}


def shortened(words: list[str]) -> list[str]:
    """The words of a command with `LITTLE`, as far as its verb has such settings."""
    if not words or "--help" in words:
        return words
    verb = build_parser(words[:1])._subcommands_action._name_parser_map[words[0]]
    known = verb._option_string_actions
    return words + [f"--{name}={value}" for name, value in LITTLE.items() if f"--{name}" in known]


if __name__ == "__main__":
    raise SystemExit(main(shortened(sys.argv[1:])))
