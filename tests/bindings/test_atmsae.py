# SPDX-License-Identifier: MIT
"""The Python binding: arrays without copies, lifetimes, errors, progress bars. With the argument
`layout`: prints assertions in C that every struct is what the header says."""
import gc
import os
import sys
import tempfile
import unittest

import atmsae
import numpy as np


def rows(n, d=16, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


class Binding(unittest.TestCase):
    def setUp(self):
        self.context = atmsae.Context(threads=1)
        self.trainer = self.make()

    def make(self, **model):
        model = dict(dict(d_in=16, d_sae=32, k=3, activation="topk"), **model)
        return atmsae.Trainer(self.context, model, dict(lr=1e-3), batch_rows=64, total_rows=6400)

    def test_rows_any_distance_apart(self):
        x = rows(64)
        wide = np.full((64, 40), np.nan, np.float32)
        wide[:, 5:21] = x
        expected = self.trainer.model.encode(x).dense()
        np.testing.assert_array_equal(self.trainer.model.encode(wide[:, 5:21]).dense(), expected)
        np.testing.assert_array_equal(self.trainer.model.encode(x[::2]).dense(), expected[::2])
        np.testing.assert_array_equal(self.trainer.model.encode(x[5:6]).dense(), expected[5:6])
        half = x.astype(np.float16)
        np.testing.assert_array_equal(
            self.trainer.model.encode(half).dense(), self.trainer.model.encode(half.astype(np.float32)).dense()
        )

    def test_wrong_arrays_are_refused(self):
        x = rows(64)
        for wrong in (x[:, :5], x.astype(np.float64), x.T, x[:, ::-1], np.asfortranarray(x), x[::-1], x[0]):
            with self.assertRaises(ValueError):
                self.trainer.step(wrong)
        with self.assertRaises(TypeError):
            self.trainer.step([[1.0] * 16])
        with self.assertRaises(ValueError):
            self.trainer.step(x, weights=np.ones(63, np.float32))
        with self.assertRaises(ValueError):
            self.trainer.step(x, y=x[:63])
        with self.assertRaises(ValueError):
            self.trainer.model.decode(self.trainer.model.encode(x), out=np.empty((63, 16), np.float32))
        self.assertEqual(self.trainer.steps_done, 0)

    def test_errors_carry_the_librarys_text(self):
        with self.assertRaisesRegex(atmsae.Error, "ATMSAE_E_ARG: k = 99.*d_sae = 32") as caught:
            self.make(k=99)
        self.assertEqual(caught.exception.status, "ATMSAE_E_ARG")
        with self.assertRaisesRegex(TypeError, "no setting 'depth'"):
            self.make(depth=1)
        with self.assertRaisesRegex(ValueError, "jumprelu"):
            self.make(activation="swish")
        x = rows(64)
        x[3, 4] = np.nan
        with self.assertRaisesRegex(atmsae.Error, "ATMSAE_E_NONFINITE"):
            self.trainer.step(x)

    def test_long_rows_are_left_out(self):
        x = rows(640)
        x[::64] *= 100
        trainer = atmsae.Trainer(self.context, dict(d_in=16, d_sae=32, k=3), batch_rows=64, total_rows=6400, max_norm=10)
        self.assertEqual((trainer.norm_limit, self.trainer.norm_limit), (0, 0))
        trainer.prepare(x)
        np.testing.assert_allclose(trainer.norm_limit, 10 * np.median(np.linalg.norm(x, axis=1)), rtol=1e-6)
        left = np.delete(x, np.s_[::64], axis=0)
        np.testing.assert_allclose(trainer.model["input_scale"], 4 / np.linalg.norm(left, axis=1).mean(), rtol=1e-6)
        stats = [trainer.step(x[i : i + 64]) for i in range(0, 640, 64)]
        self.assertEqual([(s.rows, s.outlier_rows) for s in stats], [(63, 1)] * 10)
        self.assertEqual(trainer.outlier_rows, 10)
        with self.assertRaisesRegex(atmsae.Error, "max_norm = 0.5"):
            atmsae.Trainer(self.context, dict(d_in=16, d_sae=32, k=3), max_norm=0.5)

    def test_lent_memory_is_the_librarys(self):
        model = self.trainer.model
        W = model["W_dec"]
        self.assertFalse(W.flags.writeable or W.flags.owndata)
        before = W.copy()
        for step in range(3):  # 0 at step 0: the learning rate warms up
            self.trainer.step(rows(64, seed=step))
        self.assertFalse(np.array_equal(before, W))
        np.testing.assert_array_equal(W, model["W_dec"])
        self.assertEqual(W.ctypes.data, model["W_dec"].ctypes.data)

    def test_lent_memory_keeps_its_owner(self):
        W = self.trainer.model["W_enc"]
        expected = W.copy()
        del self.trainer, self.context
        gc.collect()
        np.testing.assert_array_equal(W, expected)

    def test_parts_know_that_their_trainer_is_closed(self):
        model = self.trainer.model
        self.trainer.close()
        self.trainer.close()
        with self.assertRaisesRegex(Exception, "closed"):
            model.encode(rows(4))

    def test_set_and_get(self):
        model = atmsae.Model(self.context, d_in=16, d_sae=32, k=3, prefixes=[8, 16])
        self.assertEqual((model.config.n_prefixes, model.config.aux_k), (2, 8))
        W = rows(32)
        model["W_enc"] = W
        np.testing.assert_array_equal(model["W_enc"], W)
        model["batch_threshold"] = 0.25
        self.assertEqual(model["batch_threshold"], 0.25)
        with self.assertRaises(KeyError):
            model["r_mag"]
        with self.assertRaises(ValueError):
            model["W_enc"] = W.T

    def test_formats_and_calibration_of_a_model_alone(self):
        x = rows(640)
        with atmsae.Context(threads=1, precision="bf16") as context, tempfile.TemporaryDirectory() as folder:
            model = atmsae.Model(context, d_in=16, d_sae=32, k=3)
            with self.assertRaisesRegex(atmsae.Error, "ATMSAE_E_STATE"):
                model.encode(x)
            model.prepare(x)
            self.assertGreater(float(model["input_scale"]), 0)
            model.calibrate(x)
            self.assertEqual(len(model.encode(x).value), 3 * 640)
            x = rows(640, seed=1)  # the threshold lies on one of the others
            codes = model.encode(x)
            for path in ("sae", "params.npz"):
                model.save(f"{folder}/{path}", model_name="none", fold_decoder_norm=1)
                again = atmsae.Model.load(self.context, f"{folder}/{path}")
                np.testing.assert_allclose(again.decode(again.encode(x)), model.decode(codes), atol=1e-5)
            model.save(f"{folder}/v.gguf", latents=[3, 5], strengths=[1, 2], layer=7)
            direction = np.fromfile(f"{folder}/v.gguf", "<f4", offset=os.path.getsize(f"{folder}/v.gguf") - 64)
            W = model["W_dec"] / model["output_scale"]
            np.testing.assert_allclose(direction, W[3] + 2 * W[5], rtol=1e-5)
            with self.assertRaisesRegex(atmsae.Error, "layer"):
                model.save(f"{folder}/v.gguf", latents=[3])

    def test_stream_with_progress_and_resume(self):
        x = rows(640)
        source = atmsae.Source(self.context, epochs=2, shuffle_rows=128, seed=1)
        source.add(x)
        self.assertEqual((source.d, source.rows, len(source.batches(64))), (16, 640, 20))
        run = self.trainer.train(source.batches(64))
        self.assertEqual(len(run), 20)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "checkpoint")
            stats = []
            for s in run:
                stats.append(s)
                if s.step == 9:
                    self.trainer.save(path, source)
            self.assertEqual(len(stats), 20)
            again = atmsae.Source(self.context, epochs=2, shuffle_rows=128, seed=1)
            again.add(x)
            resumed = atmsae.Trainer.load(self.context, path, again)
            self.assertEqual([s.loss for s in resumed.train(again.batches(64))], [s.loss for s in stats[10:]])
            self.trainer.model.save(os.path.join(folder, "sae"), model_name="none", hook_name="l_out-2")
            loaded = atmsae.Model.load(self.context, os.path.join(folder, "sae"))
            np.testing.assert_allclose(
                loaded.decode(loaded.encode(x)), self.trainer.model.decode(self.trainer.model.encode(x)), atol=1e-5
            )
        with self.assertRaises(TypeError):
            len(atmsae.Source(self.context).batches(64))

    def test_transcoder(self):
        x = rows(640)
        y = np.maximum(x @ np.linspace(-1, 1, 16 * 5, dtype=np.float32).reshape(16, 5), 0).astype(np.float32)
        new = lambda: atmsae.Source(self.context, epochs=1, shuffle_rows=100, seed=1)
        source, plain, loaded = new(), new(), new()
        source.add(x, y)
        plain.add(x)
        with tempfile.TemporaryDirectory() as folder:
            np.save(f"{folder}/x.npy", x)
            np.save(f"{folder}/y.npy", y)
            loaded.add_file(f"{folder}/x.npy", targets=f"{folder}/y.npy")
            self.assertEqual((source.d, source.d_target, plain.d_target, loaded.d_target), (16, 5, 0, 5))
            target_of = {a.tobytes(): b.tobytes() for a, b in zip(x, y)}
            seen = 0
            for (a, b), only, (c, d) in zip(source.batches(64), plain.batches(64), loaded.batches(64)):
                np.testing.assert_array_equal(a, only)
                np.testing.assert_array_equal(a, c)
                np.testing.assert_array_equal(b, d)
                self.assertEqual([target_of[r.tobytes()] for r in a], [r.tobytes() for r in b])
                seen += len(a)
            self.assertEqual(seen, 640)
            again = new()
            again.add(x, y)
            trainer = atmsae.Trainer(self.context, dict(d_in=16, d_out=5, d_sae=32, k=3), batch_rows=64, total_rows=640)
            trainer.prepare(x, y)
            self.assertEqual(sum(s.rows for s in trainer.train(again.batches(64))), 640)
            trainer.model.save(f"{folder}/sae", hook_name_out="out")
            model = atmsae.Model.load(self.context, f"{folder}/sae")
            self.assertEqual((model.config.transcoder, model.config.uncentred), (1, 1))
            with self.assertRaisesRegex(atmsae.Error, "transcoder"):
                trainer.step(x)
            with self.assertRaisesRegex(ValueError, "640 rows, but 3 targets"):
                new().add(x, y[:3])

    def test_stop_and_log(self):
        lines = []
        context = atmsae.Context(threads=1, log=lambda level, text: lines.append((level, text)))
        trainer = atmsae.Trainer(context, dict(d_in=16, d_sae=32, k=3), batch_rows=64, total_rows=6400)
        with tempfile.TemporaryDirectory() as folder:
            trainer.save(folder + "/c")
            atmsae.Trainer.load(context, folder + "/c")
        context.request_stop()
        with self.assertRaisesRegex(atmsae.Error, "ATMSAE_E_STOPPED"):
            trainer.step(rows(64))
        self.assertTrue(all(level in (1, 2, 3) and isinstance(text, str) for level, text in lines))


if __name__ == "__main__":
    if sys.argv[1:] == ["layout"]:
        print("#include <atmsae/atmsae.h>")
        for name, struct in atmsae.structs.items():
            # Structs may grow at the end; then this binding lacks fields, and wants them added.
            print(f'_Static_assert(sizeof(atmsae_{name}) == {atmsae.C.sizeof(struct)}, "{name} has other fields");')
            for field, _ in struct._fields_:
                offset = getattr(struct, field).offset
                print(f'_Static_assert(offsetof(atmsae_{name}, {field}) == {offset}, "{name}.{field}");')
        for field, values in atmsae._ENUMS.items():
            prefix = {"decoder_norm": "DECODER_", "input_norm": "INPUT_", "b_dec_init": "B_DEC_", "combine": "MEAN_",
                      "kind": "MASK_", "effect": "EFFECT_", "precision": "PRECISION_", "activation": ""}[field]  # fmt: skip
            for value, number in values.items():
                print(f'_Static_assert(ATMSAE_{prefix}{value.upper()} == {number}, "{value}");')
    else:
        unittest.main()
