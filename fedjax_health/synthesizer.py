"""A generator for a DataFrame in a few lines, central or federated by a client column, with a guarantee or without.

    synthesizer = Synthesizer(label="sepsis", client="patient", epsilon=8.0, schema=schema).fit(frame)
    synthesizer.save("folder")
    rows = Synthesizer.load("folder").sample(10_000, where="sepsis=sepsis")

It runs the same federation as `launch.main`, without attacks, tables or a report.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from fedjax_health import rng
from fedjax_health.build_federation import build_federation
from fedjax_health.config import PrivacyConfig, VaeConfig
from fedjax_health.data.cells import variables
from fedjax_health.data.encode import make_encoder
from fedjax_health.data.frame_types import coded_frame, read_origins, restored_frame, write_origins
from fedjax_health.data.frames import frame_from_table, table_from_frame
from fedjax_health.data.infer import infer_schema
from fedjax_health.data.population import Store, stored_population
from fedjax_health.data.representation import QUERIES, encode_table, layout_of
from fedjax_health.data.schema import Schema
from fedjax_health.devices.round import make_ideal
from fedjax_health.federated import sharding
from fedjax_health.federated.federation import Data
from fedjax_health.federation_config import TrainConfig
from fedjax_health.files import write_text
from fedjax_health.models.vae import make_vae
from fedjax_health.preset import SHARDS, Preset, preset
from fedjax_health.privacy.class_prior import noisy_class_shares
from fedjax_health.privacy.fit import client_weights, fit_representation
from fedjax_health.privacy.plan import PrivacyPlan, Release, make_plan, write_ledger
from fedjax_health.synthesis.calibrate import calibrated_by
from fedjax_health.synthesis.generator import Generator, load_generator
from fedjax_health.synthesis.generator_file import Coder, Stored, save_generator
from fedjax_health.synthesis.sample import Published
from fedjax_health.threefry import root_key
from fedjax_health.train.loop import make_hyper, make_train
from fedjax_health.types import Table, UserError


class Synthesizer:
    """A conditional VAE of a table.

    Attributes:
      ledger: what was published and at what cost, after `fit`; see `PrivacyPlan.ledger`.
      seconds: wall time of `fit`.
    """

    def __init__(
        self,
        label: str = "",
        client: str = "",
        epsilon: float = math.inf,
        schema: Schema | None = None,
        seed: int = 0,
        preset: Preset | None = None,
    ):
        """Settings; nothing is read yet.

        Args:
          label: column of the class, where no schema is given.
          client: column of the client that a guarantee hides, likewise; "" = none: training is central, and a guarantee hides
            a row.
          epsilon: budget of all that is released (delta K^-1.1, add or remove one); infinite = no guarantee.
          schema: columns; None = inferred from the data, which no guarantee covers.
          seed: of everything random.
          preset: sizes and steps; None = by the data's size.

        Raises:
          UserError: a guarantee without a schema, or neither schema nor label.
        """
        if schema is None and math.isfinite(epsilon):
            raise UserError(
                f"epsilon={epsilon:g} needs a schema: ranges and code books read off the data would be released without noise"
            )
        if schema is None and not label:
            raise UserError("neither a schema nor a label is given; name the column of the class with label=")
        if not epsilon > 0:
            raise UserError(f"epsilon={epsilon:g} must be positive; leave it out for no guarantee")
        self.label, self.client, self.epsilon, self.schema, self.seed = label, client, epsilon, schema, seed
        self.preset, self._infers, self._origins = preset, schema is None, ()
        self.ledger: dict[str, Any] = {}
        self.seconds = 0.0
        self._generator: Generator | None = None
        self._published: tuple[Published, np.ndarray, Coder, str] | None = None

    def fit(self, frame: pd.DataFrame) -> Synthesizer:
        """Trains on a frame, as one federation on this machine.

        Without a schema rows come back in the frame's own columns, names and types: dates, constants, gaps in text and all.

        Args:
          frame: one row a record.

        Returns:
          Itself.

        Raises:
          UserError: cells that break the schema, too few clients, or a budget that no noise meets.
        """
        began = time.perf_counter()
        if self._infers:
            frame, self._origins = coded_frame(frame, self.label, self.client)
            self.schema = infer_schema(frame, self.label, self.client)
        schema = self.schema
        assert schema is not None
        table, _ = table_from_frame(frame, schema, None, "the frame")
        federated, private = schema.client is not None, math.isfinite(self.epsilon)
        chosen = self.preset or preset(np.bincount(table.client), self.epsilon, federated)
        if not variables(schema):  # no number, so no scores
            chosen = dataclasses.replace(chosen, representation="public")
        if not federated and not private:
            table = _shards(table, rng.host_rng(self.seed, rng.Stream.SPREAD, "shards"))
        count = np.bincount(table.client).astype(np.int32)
        layout = layout_of(schema, chosen.representation)
        sizes = VaeConfig(chosen.hidden, "auto", chosen.latent, 1.0, chosen.train, chosen.decoder)
        model = make_vae(layout, schema.num_classes, sizes)
        mechanism = "central_gaussian" if private else "none"
        parts = build_federation(
            model, stored_population(len(count), int(count.max()), int(count.min())), layout.dim, schema.num_classes,
            chosen.train, sharding.make_local_mesh(), lambda asked: make_ideal(), 1.0, mechanism,
        )  # fmt: skip
        release = Release("table/vae", "table", parts.sampler, chosen.train.rounds, chosen.train.l2_clip_norm)
        privacy = PrivacyConfig(mechanism, self.epsilon if private else 1.0, 0.0, 0.0, 20.0)
        plan = make_plan(privacy, len(count), [release], queries=QUERIES[chosen.representation])
        records = chosen.train.aggregation.weighting == "examples" or not (federated or private)
        shares, fitted, x = self._measure(table, schema, chosen, plan, records)
        offset = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int32)
        store = Store(jnp.asarray(x), jnp.asarray(table.label), jnp.asarray(offset), jnp.asarray(count))
        network = self._train(parts, chosen.train, plan, shares, store)
        key = root_key(rng.named_seed(self.seed, "table", "vae", "calibrate"))
        if chosen.representation != "public":
            fitted = calibrated_by(
                jax.jit(model.sample), network, shares, key, chosen.representation, layout.missing, fitted
            )
        self.ledger = plan.ledger({release.stage: chosen.train.rounds})
        coder = Coder(chosen.hidden, chosen.latent, chosen.decoder)
        self._published = (Published(network, fitted), shares, coder, chosen.representation)
        self._generator = self._rebuilt(model)
        self.seconds = time.perf_counter() - began
        return self

    def sample(self, rows: int, where: str = "", seed: int = 0) -> pd.DataFrame:
        """New rows, or rows that meet a condition.

        Args:
          rows: how many.
          where: condition, as `condition.parse_condition` reads it.
          seed: of the rows: the same seed gives the same rows.

        Raises:
          UserError: nothing is fitted or loaded, or a condition that cannot be met.
        """
        if self._generator is None:
            raise UserError("nothing is fitted yet; call fit(frame) or Synthesizer.load(folder)")
        table = self._generator.sample(rows, root_key(rng.named_seed(seed, "synthesizer", "sample")), where)
        return restored_frame(frame_from_table(table, self._generator.schema), self._origins)

    def save(self, folder: str) -> None:
        """Writes the generator (as a run publishes it), its schema, the ledger, and a frame's types where they were read off.

        Args:
          folder: is made.

        Raises:
          UserError: nothing is fitted, or what is there was loaded.
        """
        if self._published is None or self.schema is None:
            raise UserError("nothing is fitted yet; call fit(frame) first")
        published, shares, network, kind = self._published
        os.makedirs(folder, exist_ok=True)
        save_generator(folder, "table", "vae", network, kind, published, shares, self.schema)
        write_text(os.path.join(folder, "schema.json"), self.schema.to_json())
        if self._infers:
            write_origins(folder, self._origins)
        write_ledger(os.path.join(folder, "privacy_ledger.json"), self.ledger)

    @classmethod
    def load(cls, folder: str) -> Synthesizer:
        """What `save` wrote, ready to sample.

        Args:
          folder: of `save`.

        Raises:
          UserError: files that are missing or damaged.
        """
        generator = load_generator(os.path.join(folder, "table_vae.generator.json"))
        loaded = cls(label=generator.schema.label.name, schema=generator.schema)
        loaded._generator, loaded._origins = generator, read_origins(folder)
        return loaded

    def _measure(
        self, table: Table, schema: Schema, chosen: Preset, plan: PrivacyPlan, records: bool
    ) -> tuple[np.ndarray, Any, np.ndarray]:
        """Class shares, representation, and the encoded records."""

        def normals(*query: str) -> np.random.Generator:
            return rng.host_rng(self.seed, rng.Stream.CLASS_PRIOR, "table", "0", *query)

        clients = int(table.client.max()) + 1
        noise = plan.config.prior_noise_multiplier if plan.formal else 0.0
        shares = noisy_class_shares(
            table, np.ones(clients, bool), schema.num_classes, noise, normals(), records=records
        )
        weight = np.ones(len(table.label)) if records else client_weights(table.client)
        spread = rng.host_rng(self.seed, rng.Stream.SPREAD, "table")
        kind = chosen.representation
        if kind == "public":
            return shares, (), np.asarray(jax.jit(make_encoder(schema).encode)(jnp.asarray(table.values)))
        fitted = fit_representation(
            table.values, table.label, weight, table.client, schema, kind, plan.statistics_noise, normals, spread
        )
        return shares, fitted, encode_table(table.values, table.label, schema, kind, fitted, spread)

    def _train(self, parts: Any, train: TrainConfig, plan: PrivacyPlan, shares: np.ndarray, store: Store) -> Any:
        """The averaged network that is released."""
        values = {
            "client_learning_rate": train.client_learning_rate,
            "server_learning_rate": train.server_learning_rate,
            "rounds": float(train.rounds),
            "l2_clip_norm": train.l2_clip_norm,
            "noise_multiplier": plan.noise_multiplier,
            "kl_weight": 1.0,
        }
        hyper = {**make_hyper(values, 1), "class_prior": jnp.asarray(shares)[None]}
        compiled = make_train(parts, train)
        state = compiled.init(rng.numbered_keys(root_key(rng.named_seed(self.seed, "table/vae")), 1))
        data = Data(store, jnp.ones((1, parts.population.size), bool))
        for _ in range(train.rounds // train.rounds_per_chunk):
            state, metrics = compiled.run_chunk(state, hyper, data)
            if not np.isfinite(np.asarray(metrics["public/parameter_norm"])).all():
                raise UserError("training diverged: a parameter is not finite; lower the preset's server_learning_rate")
        return jax.device_get(jax.tree.map(lambda leaf: leaf[0], state.average))

    def _rebuilt(self, model: Any) -> Generator:
        assert self._published is not None and self.schema is not None
        published, shares, network, kind = self._published
        return Generator(Stored("", "table", "vae", network, kind, self.schema, shares, {}), model, published)


def _shards(table: Table, generator: np.random.Generator) -> Table:
    """Rows in random order, dealt to as many clients as a central training has."""
    order = generator.permutation(len(table.label))
    client = np.sort(np.arange(len(order)) % min(SHARDS, len(order))).astype(np.int32)
    return Table(table.values[order], table.label[order], client)
