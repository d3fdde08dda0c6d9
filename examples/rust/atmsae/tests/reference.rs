// SPDX-License-Identifier: MIT
//! The wrapper: the same bits as the C program tests/bindings/reference.c, whose output ATMSAE_REFERENCE
//! names; errors; rows that are too short; handles on other threads.

use atmsae::{sys, Codes, Context, LatentSums, Masker, MaskerConfig, Model, ModelConfig, Rows, Source, Synth, SynthConfig};
use atmsae::{Tracker, TrackerConfig, Trainer, TrainerConfig};

fn bytes<T: Copy>(data: &[T]) -> &[u8] {
    unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), std::mem::size_of_val(data)) }
}

fn trainer(context: &Context) -> atmsae::Result<Trainer> {
    let mut config = TrainerConfig { batch_rows: 512, total_rows: 60 * 512, ..Default::default() };
    (config.model.d_in, config.model.d_sae, config.model.k, config.model.seed) = (96, 168, 3.0, 7);
    config.optimizer.lr = 1e-3;
    config.masker.r = 0.5;
    Trainer::new(context, &config)
}

#[test]
fn same_bits_as_c() -> Result<(), Box<dyn std::error::Error>> {
    let file = match std::env::var_os("ATMSAE_REFERENCE") {
        Some(file) => file,
        None => return Ok(println!("ATMSAE_REFERENCE is not set: nothing to compare with")),
    };
    let context = Context::new(0)?;
    let mut out = Vec::new();
    let synth = Synth::new(&context, &Default::default())?;
    let mut trainer = trainer(&context)?;
    trainer.prepare(&synth.rows(0, 512)?)?;
    for step in 0..60 {
        trainer.step(&synth.rows(step * 512, 512)?)?;
    }
    let last = synth.rows(59 * 512, 512)?;
    trainer.calibrate(&last)?;
    let model = trainer.model();
    for p in [sys::ATMSAE_W_ENC, sys::ATMSAE_B_ENC, sys::ATMSAE_W_DEC, sys::ATMSAE_B_DEC, sys::ATMSAE_BATCH_THRESHOLD] {
        out.extend_from_slice(bytes(model.view(p)));
    }
    let mut codes = Codes::new(&context)?;
    model.encode(&last, &mut codes)?;
    let view = codes.view()?;
    out.extend_from_slice(bytes(view.row_start));
    out.extend_from_slice(bytes(view.latent));
    out.extend_from_slice(bytes(view.value));
    out.extend_from_slice(bytes(&model.decode(&codes)?));

    let mut tracker = Tracker::new(&context, &TrackerConfig { d_sae: 8, ..Default::default() })?;
    let mut masker = Masker::new(&context, &MaskerConfig { d_sae: 8, seed: 11, c: 0.5, effect: sys::ATMSAE_EFFECT_HARD, ..Default::default() })?;
    for step in 0..300 {
        let mut mask = [0; 8];
        let drawn = masker.draw(step)?;
        mask[..drawn.len()].copy_from_slice(drawn);
        out.extend_from_slice(&mask);
        let rows = mask.map(|m| if m == 1 { 0.0 } else { 1000.0 });
        let mut frequency = rows;
        (0..8).for_each(|i| frequency[i] /= (i + 2) as f64);
        let (magnitude, contribution) = (frequency.map(|f| 1.5 * f), frequency.map(|f| 2.0 * f));
        tracker.observe(LatentSums { rows: &rows, magnitude: &magnitude, frequency: &frequency, contribution: &contribution })?;
        masker.update(tracker.importance())?;
    }
    out.extend_from_slice(bytes(masker.p()));
    out.extend_from_slice(bytes(tracker.importance()));
    assert!(out == std::fs::read(file)?, "not what the C program wrote");
    Ok(())
}

#[test]
fn errors_have_the_librarys_text() {
    let context = Context::new(1).unwrap();
    let mut config = ModelConfig::default();
    (config.d_in, config.d_sae, config.k) = (4, 8, 9.0);
    let error = Model::new(&context, &config).err().expect("k is above d_sae");
    assert_eq!(error.status, sys::ATMSAE_E_ARG);
    assert!(error.to_string().starts_with("ATMSAE_E_ARG: k = 9"), "{error}");
}

#[test]
fn lengths_are_checked() {
    let context = Context::new(1).unwrap();
    let mut trainer = trainer(&context).unwrap();
    let x = vec![0.5; 96 * 4];
    assert!(trainer.step(&x[1..]).is_err());
    assert!(trainer.step(Rows::from(&x).weights(&[1.0, 1.0])).is_err());
    assert!(trainer.step(Rows::from(&x).targets(&x[..96])).is_err());
    assert!(trainer.step(Rows::from(&x).weights(&[1.0; 4])).is_ok());
    let mut tracker = Tracker::new(&context, &TrackerConfig { d_sae: 8, ..Default::default() }).unwrap();
    let (short, right) = ([1.0; 7], [1.0; 8]);
    let sums = LatentSums { rows: &right, magnitude: &right, frequency: &short, contribution: &right };
    assert!(tracker.observe(sums).is_err());
}

#[test]
fn sizes_and_pointers_in_settings_are_ours() {
    let context = Context::new(1).unwrap();
    let mut config = ModelConfig::default();
    (config.d_in, config.d_sae, config.k) = (4, 8, 2.0);
    config.size = 4096;
    config.n_prefixes = 1 << 40;
    config.prefixes = vec![2, 4];
    let model = Model::new(&context, &config).unwrap();
    assert_eq!(model.config().prefixes, [2, 4]);
}

#[test]
fn one_model_serves_several_threads() {
    let context = Context::new(1).unwrap();
    let synth = Synth::new(&context, &Default::default()).unwrap();
    let rows = synth.rows(0, 256).unwrap();
    let mut trainer = trainer(&context).unwrap();
    trainer.prepare(&rows).unwrap();
    trainer.step(&rows).unwrap();
    let model = trainer.model();
    let encode = || {
        let mut codes = Codes::new(&context).unwrap();
        model.encode(&rows, &mut codes).unwrap();
        let view = codes.view().unwrap();
        (0..view.n_rows()).flat_map(|r| view.row(r).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let expected = encode();
    assert!(!expected.is_empty());
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..3).map(|_| scope.spawn(encode)).collect();
        others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), expected));
    });
}

/// The text of a failure may be another thread's, but it is one text, whole.
#[test]
fn texts_of_failures_are_whole() {
    let context = Context::new(1).unwrap();
    let load = |letter: &str| {
        let name = letter.repeat(900);
        for _ in 0..3000 {
            let text = Model::load(&context, &name).err().expect("there is no such file").text;
            let named = text.split(':').next().unwrap();
            assert!(named.len() == 900 && ["a", "b", "c"].iter().any(|l| named == l.repeat(900)), "{text}");
        }
    };
    std::thread::scope(|scope| ["a", "b", "c"].map(|letter| scope.spawn(move || load(letter))).map(|t| t.join().unwrap()));
}

/// Shared references from two threads are at worst an error.
#[test]
fn everything_may_be_shared_and_sent() {
    fn both<T: Send + Sync>() {}
    both::<Context>();
    both::<Model>();
    both::<Trainer>();
    both::<Codes>();
    both::<Source<'static>>();
    let context = Context::new(1).unwrap();
    let mut trainer = trainer(&context).unwrap();
    let x = vec![0.5; 96 * 4];
    trainer.step(&x).unwrap();
    let (model, mut codes) = (trainer.model(), Codes::new(&context).unwrap());
    model.encode(&x, &mut codes).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..200 {
                    assert_eq!(model.decode(&codes).unwrap().len(), x.len());
                    assert_eq!(codes.view().unwrap().n_rows(), 4);
                    context.request_stop();
                    context.clear_stop();
                }
            });
        }
    });
}

#[test]
fn more_rows_than_memory_holds() {
    let context = Context::new(1).unwrap();
    let synth = Synth::new(&context, &SynthConfig { d: 64, ..Default::default() }).unwrap();
    for n in [1 << 58, 1 << 59, usize::MAX] {
        assert!(synth.rows(0, n).is_err()); // n * 64 is 0 in 64 bits
    }
}

#[test]
fn a_source_and_a_checkpoint() {
    let context = Context::new(1).unwrap();
    let rows = Synth::new(&context, &Default::default()).unwrap().rows(0, 2048).unwrap();
    let source = |context| {
        let mut source = Source::new(context, &Default::default()).unwrap();
        source.add_memory(&rows, 96).unwrap();
        source
    };
    let mut first = source(&context);
    let mut trainer = trainer(&context).unwrap();
    let mut buffer = vec![0.0; 512 * 96];
    trainer.step(first.next(&mut buffer).unwrap()).unwrap();
    let file = std::env::temp_dir().join(format!("atmsae-{}.safetensors", std::process::id()));
    trainer.save(Some(&first), &file).unwrap();
    let expected = trainer.step(first.next(&mut buffer).unwrap()).unwrap();
    let mut second = source(&context);
    let mut resumed = Trainer::load(&context, &file, Some(&mut second)).unwrap();
    std::fs::remove_file(&file).unwrap();
    let stats = resumed.step(second.next(&mut buffer).unwrap()).unwrap();
    assert_eq!((stats.step, stats.loss), (expected.step, expected.loss));
}

#[test]
fn targets_stay_with_their_rows() -> atmsae::Result<()> {
    let context = Context::new(1)?;
    let x: Vec<f32> = (0..60).map(|i| (i / 3) as f32).collect();
    let y: Vec<f32> = (0..40).map(|i| (i / 2) as f32 + 0.5).collect();
    let mut source = Source::new(&context, &atmsae::SourceConfig { shuffle_rows: 7, epochs: 1, ..Default::default() })?;
    source.add_memory(&x, 3)?;
    assert!(source.add_target_memory(&y[..8], 2).unwrap_err().text.contains("4 targets"));
    source.add_target_memory(&y, 2)?;
    assert_eq!((source.d(), source.d_target()), (3, 2));
    let mut out = [0.0; 64];
    let mut total = 0;
    loop {
        let rows = source.next(&mut out)?.to_vec();
        let (a, b) = source.split(&rows);
        assert_eq!(a.len() / 3, b.len() / 2);
        assert!(a.chunks(3).zip(b.chunks(2)).all(|(a, b)| a.iter().all(|v| *v == a[0]) && b.iter().all(|v| *v == a[0] + 0.5)));
        total += a.len() / 3;
        if a.is_empty() {
            break;
        }
    }
    assert_eq!(total, 20);
    Ok(())
}
