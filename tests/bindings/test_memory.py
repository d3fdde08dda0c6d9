# SPDX-License-Identifier: MIT
"""The Python binding's memory: what is handed over lives through the call, what is lent keeps its owner,
nothing is written that is not the caller's to write, and no wrong object reaches C as a pointer.

Every test also runs on a library under the address sanitizer (python.sh asan), where reading or
writing memory that was freed ends the program."""
import gc
import json
import os
import signal
import sys
import tempfile
import threading
import unittest

import atmsae
import numpy as np

N, D, F = 500, 256, 64  # rows of half a megabyte, which malloc gives back to the system when they are freed


def rows(n=N, d=D, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


class Lazy:
    """An array that comes into being when NumPy asks, as h5py's and zarr's do."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __array__(self, dtype=None, copy=None):
        return self.array.copy()


def junk():
    """Writes over memory that was just freed."""
    return [np.full((N, D), 7, np.float32) for _ in range(3)]


class Base(unittest.TestCase):
    def setUp(self):
        self.context = atmsae.Context(threads=1)
        self.model = atmsae.Model(self.context, d_in=D, d_sae=F, activation="topk", k=4)
        self.x = rows()


class HandedOver(Base):
    def same(self, what):
        """`what` gives, time after time, what its rows give as an array."""
        expected = self.model.encode(np.array(np.asarray(what))).dense()
        for _ in range(5):
            np.testing.assert_array_equal(self.model.encode(what).dense(), expected)
            junk()

    def test_rows_targets_weights_and_sums(self):
        self.same(Lazy(self.x))
        plain, lazy = (atmsae.Trainer(self.context, dict(d_in=D, d_sae=F, k=4), batch_rows=N, total_rows=9 * N) for _ in "ab")
        weights = np.linspace(0, 1, N, dtype=np.float32)
        for seed in range(3):
            x, y = rows(seed=seed), rows(seed=seed + 9)
            expected = plain.step(x, y, weights)
            self.assertEqual(str(lazy.step(Lazy(x), Lazy(y), Lazy(weights))), str(expected))
        sums = np.random.default_rng(1).random((4, 50000))
        a, b = (atmsae.Tracker(self.context, 50000) for _ in "ab")
        a.observe(*sums)
        b.observe(*map(Lazy, sums))
        np.testing.assert_array_equal(a.importance, b.importance)
        maskers = [atmsae.Masker(self.context, 50000, warmup_steps=0) for _ in "ab"]
        for masker, importance in zip(maskers, (a.importance, Lazy(np.array(a.importance)))):
            masker.update(importance)
            masker.draw(1)
        np.testing.assert_array_equal(maskers[0].p, maskers[1].p)

    def test_parameters(self):
        W = rows(F)
        self.model["W_dec"] = Lazy(W)
        np.testing.assert_array_equal(self.model["W_dec"], W)
        self.model["input_scale"] = np.float64(2)
        self.assertEqual(self.model["input_scale"], 2)

    def test_a_source_keeps_its_rows(self):
        for keep_source in (True, False):
            source = atmsae.Source(self.context, shuffle_rows=0, epochs=1)
            source.add(Lazy(self.x))
            source.add(self.x + 1)
            stream = iter(source.batches(N))
            if not keep_source:
                del source
            gc.collect()
            junk()
            np.testing.assert_array_equal(next(stream), self.x)
            junk()
            np.testing.assert_array_equal(next(stream), self.x + 1)

    def test_rows_that_a_source_has_cannot_be_resized(self):
        source = atmsae.Source(self.context, shuffle_rows=0, epochs=1)
        x = rows()
        source.add(x)
        with self.assertRaisesRegex(ValueError, "resize"):
            x.resize((10 * N, D))

    def test_memory_maps(self):
        with tempfile.TemporaryDirectory() as folder:
            np.save(folder + "/x.npy", self.x)
            self.same(np.load(folder + "/x.npy", mmap_mode="r"))
            self.same(np.load(folder + "/x.npy", mmap_mode="r")[::3])
            source = atmsae.Source(self.context, shuffle_rows=0, epochs=1)
            source.add(np.load(folder + "/x.npy", mmap_mode="r")[10:20])
            gc.collect()
            np.testing.assert_array_equal(source.next(10), self.x[10:20])

    def test_h5py(self):
        try:
            import h5py
        except ImportError:
            self.skipTest("no h5py")
        with tempfile.TemporaryDirectory() as folder, h5py.File(folder + "/x.h5", "w") as f:
            f["x"], f["half"] = self.x, self.x.astype(np.float16)
            self.same(f["x"])
            self.same(f["half"])
            source = atmsae.Source(self.context, shuffle_rows=0, epochs=1)
            source.add(f["x"])
            junk()
            np.testing.assert_array_equal(source.next(N), self.x)
            with self.assertRaises(TypeError):  # it would be lost
                self.model.decode(self.model.encode(self.x), out=f["x"])

    def test_pandas(self):
        try:
            import pandas
        except ImportError:
            self.skipTest("no pandas")
        parts = [pandas.DataFrame(self.x[:, :128]), pandas.DataFrame(self.x[:, 128:])]
        two_blocks = pandas.concat(parts, axis=1)
        with self.assertRaisesRegex(ValueError, "ascontiguousarray"):  # frames lie column by column
            self.model.encode(two_blocks)
        self.same(np.ascontiguousarray(two_blocks))
        expected = self.model.encode(self.x[:1]).dense()
        for _ in range(5):  # a frame of one row is its own transpose
            np.testing.assert_array_equal(self.model.encode(two_blocks[:1]).dense(), expected)

    def test_torch(self):
        try:
            import torch
        except ImportError:
            self.skipTest("no torch")
        self.same(torch.from_numpy(self.x))
        source = atmsae.Source(self.context, shuffle_rows=0, epochs=1)
        for kind in (torch.float32, torch.bfloat16):
            x = torch.from_numpy(self.x).to(kind)
            source.add(x)
            with self.assertRaisesRegex(RuntimeError, "resize"):
                x.resize_(10 * N, D)
        del x
        gc.collect()
        np.testing.assert_array_equal(source.next(N), self.x)
        with self.assertRaises(RuntimeError):  # its memory has the opposite signs
            self.model.encode(torch.complex(torch.zeros(N, D), torch.from_numpy(self.x)).conj().imag)
        W = self.model["W_dec"]
        for view in (W.T, W[:, ::2], W[3]):
            np.testing.assert_array_equal(atmsae.tensor(view).numpy(), view)
        with self.assertRaises(ValueError):
            atmsae.tensor(W[::-1])
        with self.assertRaises(TypeError):
            atmsae.tensor(np.frombuffer(bytes(64), np.float32))


class Written(Base):
    def test_out_is_checked(self):
        codes = self.model.encode(self.x[:3])
        expected = self.model.decode(codes)
        text = bytes(4 * 3 * D)
        buffer = bytearray(4 * 3 * D + 1)
        for out, error in [
            (np.frombuffer(text, np.float32).reshape(3, D), ValueError),  # read-only
            (self.model["W_dec"][:3], ValueError),
            (np.frombuffer(buffer, np.float32, offset=1).reshape(3, D), ValueError),  # not aligned
            (np.empty((D, 3), np.float32).T, ValueError),
            (np.empty((3, 2 * D), np.float32)[:, ::2], ValueError),
            (np.empty((4, D), np.float32), ValueError),
            (np.empty((3, D), np.float16), ValueError),
            (np.empty((3, D), ">f4"), ValueError),
            (np.broadcast_to(np.empty((1, D), np.float32), (3, D)), ValueError),
            (Lazy(expected), TypeError),  # a copy would be written to, and lost
            (memoryview(buffer), TypeError),
            ([[0.0] * D] * 3, TypeError),
        ]:
            with self.assertRaises(error):
                self.model.decode(codes, out=out)
        self.assertEqual(text, bytes(len(text)))
        self.assertEqual(buffer, bytes(len(buffer)))
        wide = np.zeros((3, D + 5), np.float32)
        self.assertIs(self.model.decode(codes, out=(part := wide[:, 2:-3])), part)
        np.testing.assert_array_equal(part, expected)
        self.assertEqual(np.abs(wide[:, :2]).sum() + np.abs(wide[:, -3:]).sum(), 0)

    def test_rows_are_aligned(self):
        shifted = np.frombuffer(bytearray(self.x.nbytes + 1), np.float32, count=self.x.size, offset=1).reshape(N, D)
        with self.assertRaisesRegex(ValueError, "aligned"):
            self.model.encode(shifted)

    def test_lent_arrays_are_read_only_for_good(self):
        for lent in (self.model["W_dec"], self.model.encode(self.x).value):
            with self.assertRaises(ValueError):
                lent.flags.writeable = True

    def test_sizes_are_not_for_assignment(self):
        tracker = atmsae.Tracker(self.context, 10)
        for handle, name in [(tracker, "d_sae"), (self.model, "d_in"), (self.model, "d_out"), (self.model, "d_sae")]:
            with self.assertRaises(AttributeError):
                setattr(handle, name, 10**8)
        self.model.config.d_sae = 10**8
        self.assertEqual((self.model["W_enc"].shape, len(tracker.importance)), ((F, D), 10))


class Lent(Base):
    def test_arrays_outlive_close(self):
        trainer = atmsae.Trainer(self.context, dict(d_in=D, d_sae=F, k=4), masker=dict(warmup_steps=0), batch_rows=N, total_rows=9 * N)
        trainer.step(self.x)
        codes = self.model.encode(self.x)
        tracker, masker = atmsae.Tracker(self.context, 50000), atmsae.Masker(self.context, 50000, effect="hard", r=9, warmup_steps=0)
        for _ in range(2):
            masker.draw(5)
            masker.update(np.linspace(0, 9, 50000))
        lent = [
            self.model["W_dec"], trainer.model["W_enc"][3:5], trainer.tracker.importance, codes.value, codes.latent,
            codes.row_start, tracker.importance, masker.p, masker.draw(6),
        ]  # fmt: skip
        before = [a.copy() for a in lent]
        part = trainer.model
        for handle in (self.model, trainer, codes, tracker, masker, self.context):
            handle.close()
            handle.close()
        gc.collect()
        junk()
        for a, b in zip(lent, before):
            np.testing.assert_array_equal(a, b)
        for use in (lambda: part["W_dec"], lambda: self.model.encode(self.x), lambda: codes.value, lambda: tracker.importance,
                    lambda: masker.draw(7), lambda: masker.theta, lambda: trainer.step(self.x), lambda: trainer.model,
                    lambda: codes.n_rows, lambda: atmsae.Codes(self.context), self.context.request_stop):  # fmt: skip
            with self.assertRaisesRegex(ValueError, "closed"):
                use()

    def test_close_frees(self):
        """Deferred is not for ever: what nothing uses is freed at once."""
        freed = []
        array = self.model["W_dec"]
        gc.disable()  # a failure keeps nothing until then
        self.addCleanup(gc.enable)
        try:
            self.model.encode(self.x * np.float32(np.nan))
        except atmsae.Error as error:
            self.assertEqual(error.status, "ATMSAE_E_NONFINITE")
        for handle in (self.context, self.model):
            atmsae.weakref.finalize(handle._pointer, freed.append, type(handle))
        self.model.close()
        self.assertEqual(freed, [])
        del array
        self.assertEqual(freed, [atmsae.Model])
        self.context.close()
        self.assertEqual(freed, [atmsae.Model, atmsae.Context])

    def test_codes_that_are_filled_again(self):
        codes = self.model.encode(self.x[:10])
        lent = codes.row_start, codes.latent, codes.value
        before = [a.copy() for a in lent]
        self.model.encode(self.x, codes)
        junk()
        for a, b in zip(lent, before):
            np.testing.assert_array_equal(a, b)
        self.assertEqual(codes.n_rows, N)
        np.testing.assert_array_equal(codes.dense(), self.model.encode(self.x).dense())

    def test_codes_keep_their_memory_where_nothing_is_lent(self):
        codes = self.model.encode(self.x)
        address = codes._pointer.value
        for _ in range(3):
            codes.dense()
            self.model.encode(self.x, codes)
        self.assertEqual(codes._pointer.value, address)

    def test_handles_are_closed_while_threads_use_them(self):
        """A call in progress keeps its handles; the next one says that they are closed."""
        for _ in range(10):
            handles = dict(context=atmsae.Context(threads=1))
            handles["model"] = model = atmsae.Model(handles["context"], d_in=D, d_sae=F, activation="topk", k=4)
            handles["codes"] = codes = atmsae.Codes(handles["context"])
            ended = []

            def work():
                try:
                    while True:
                        model.encode(self.x, codes)
                        model.decode(codes)
                        model["W_enc"].sum()
                        codes.value.sum()
                except Exception as error:
                    ended.append(repr(error))

            threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
            for thread in threads:
                thread.start()
            for name in handles:
                handles[name].close()
            for thread in threads:
                thread.join()
            for text in ended:
                self.assertRegex(text, "^ValueError.*closed|ATMSAE_E_STATE")

    def test_codes_of_two_threads(self):
        """Filled by one, read by the other: what is read is one filling, whole."""
        codes, few, many = self.model.encode(self.x[:2]), self.x[:2], self.x
        sums = {float(self.model.encode(x).value.sum()) for x in (few, many)}
        stop, seen = [], set()

        def read():
            while not stop:
                try:
                    seen.add(float(codes.value.sum()))
                    seen.add(len(self.model.decode(codes)))
                except atmsae.Error as error:
                    seen.add(str(error))

        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)
        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        for i in range(100):
            self.model.encode(many if i % 2 else few, codes)
        stop.append(1)
        thread.join()
        self.assertLessEqual(seen, sums | {2, N})


class Refused(Base):
    def test_handles_of_another_kind(self):
        codes, trainer = self.model.encode(self.x), atmsae.Trainer(self.context, dict(d_in=D, d_sae=F, k=4))
        for use in (lambda: self.model.decode(self.context), lambda: self.model.decode(None), lambda: self.model.decode(7),
                    lambda: self.model.encode(self.x, codes=self.context), lambda: self.model.encode(self.x, codes=0),
                    lambda: atmsae.Codes(self.model), lambda: atmsae.Model(codes, d_in=4), lambda: atmsae.Model.load(None, "x"),
                    lambda: atmsae.Source(codes), lambda: trainer.save("nowhere", self.model),
                    lambda: atmsae.Trainer.load(self.context, "nowhere", self.model)):  # fmt: skip
            with self.assertRaisesRegex(TypeError, "expected a (Context|Codes|Source)"):
                use()

    def test_settings(self):
        def model(**config):
            return atmsae.Model(self.context, **dict(dict(d_in=4, d_sae=64, k=2), **config))

        for config in (dict(n_prefixes=60), dict(prefixes=[1, 2], n_prefixes=60), dict(size=8), dict(pad0_=1), dict(asdict=1),
                       dict(letters=1), dict(keep=1), dict(d_sae=64.0), dict(d_sae=None), dict(k="many")):  # fmt: skip
            with self.assertRaises(TypeError):
                model(**config)
        for config in (dict(d_sae=-1), dict(d_sae=2**64), dict(activation=2**32 + 2), dict(prefixes=[-1]), dict(seed=-1)):
            with self.assertRaisesRegex(ValueError, "must be"):
                model(**config)
        with self.assertRaises(ValueError):
            atmsae.Context(threads=2**32 + 1)
        with self.assertRaises(TypeError):
            atmsae.Trainer(self.context, dict(d_in=4), optimizer=dict(lr=1), allocator=1)
        self.assertEqual(model(prefixes=np.array([8, 16]), seed=np.int64(3)).config.n_prefixes, 2)
        with self.assertRaises(ValueError):
            atmsae.Masker(self.context, 10).draw(-1)

    def test_texts(self):
        with tempfile.TemporaryDirectory() as folder:
            for path in (folder + "/a\0b", os.fsencode(folder) + b"/a\0b"):
                for use in (self.model.save, lambda p: atmsae.Model.load(self.context, p), atmsae.Source(self.context).add_file,
                            lambda p: self.model.save(folder + "/c", model_name=p)):  # fmt: skip
                    with self.assertRaisesRegex(ValueError, "NUL"):
                        use(path)
            self.assertEqual(os.listdir(folder), [])
            path = folder.encode() + b"/caf\xe9"  # no UTF-8
            with self.assertRaisesRegex(atmsae.Error, r"caf\\xe9"):
                atmsae.Model.load(self.context, path)
            for name in (path, os.fsdecode(path)):
                self.model.save(name, model_name="gemma \u00e9")
                self.assertTrue(os.path.isdir(path))
                np.testing.assert_array_equal(atmsae.Model.load(self.context, name)["W_dec"], self.model["W_dec"])
            for wrong in (3, None, ["x"]):
                with self.assertRaises(TypeError):
                    self.model.save(wrong)
            with self.assertRaises(TypeError):
                atmsae.Source(self.context).add_file("x.safetensors", tensor=3)

    def test_latents_of_a_control_vector(self):
        with tempfile.TemporaryDirectory() as folder:
            for latents in ([1.5], [-1], [2**32], [[1, 2]]):
                with self.assertRaises((TypeError, ValueError)):
                    self.model.save(folder + "/v.gguf", latents=latents, layer=3)
            with self.assertRaises(ValueError):
                self.model.save(folder + "/v.gguf", latents=[1, 2], strengths=[1], layer=3)
            self.assertEqual(os.listdir(folder), [])


class Callbacks(Base):
    def loading(self, log):
        """(context, a function whose call logs twice)"""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.model.save(folder.name + "/sae")
        with open(folder.name + "/sae/cfg.json") as f:
            config = json.load(f)
        with open(folder.name + "/sae/cfg.json", "w") as f:
            json.dump(dict(config, unheard_of=1), f)
        context = atmsae.Context(threads=1, log=log)
        return context, lambda: atmsae.Model.load(context, folder.name + "/sae")

    def test_what_a_log_raises_comes_out(self):
        for error in (ZeroDivisionError, KeyboardInterrupt, SystemExit):

            def log(level, text):
                raise error("of the log")

            try:  # a context may have something to say about this machine
                context, load = self.loading(log)
            except error:
                self.skipTest("the context itself logs here")
            with self.assertRaisesRegex(error, "of the log"):
                load()
            # Nothing stays claimed, and nothing is raised twice.
            model = atmsae.Model(context, d_in=D, d_sae=F, activation="topk", k=4)
            model.encode(self.x)

    def test_an_interrupt_that_comes_in_a_callback(self):
        context, load = self.loading(lambda level, text: signal.raise_signal(signal.SIGINT))
        with self.assertRaises(KeyboardInterrupt):
            load()

    def test_a_log_may_call_the_library(self):
        lines = []

        def log(level, text):
            lines.append(text)
            with self.assertRaisesRegex(atmsae.Error, "nowhere"):
                atmsae.Model.load(self.context, "nowhere")

        load = self.loading(log)[1]
        gc.collect()
        load()
        self.assertTrue(any("unheard_of" in line for line in lines), lines)


if __name__ == "__main__":
    unittest.main()
