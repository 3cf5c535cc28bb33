//! Runs that lack something, make no sense, or mean harm.

use zhaul_measure::Method;
use zhaul_measure::bench::results::{Contender, Found, Part, Path, Results};

use crate::synthetic::{MODELS, Plan, results, whole};

/// Stopped in the middle: some cells lack rounds, some have none, some were not verified.
pub(crate) fn interrupted() -> Results {
    let mut results = results(&Plan {
        noise: 0.5,
        ..Plan::whole()
    });
    results.interrupted = true;
    results.host.load = "3.70".into();
    results.cells.retain(|cell| cell.path != Path::PipeToTcp);
    for (index, cell) in results.cells.iter_mut().enumerate() {
        cell.samples.truncate(index % 5 + 1);
        cell.verified = index % 7 != 0;
        if index % 3 == 0 {
            cell.counted.clear();
        }
        if index % 11 == 0 {
            cell.samples.clear();
        }
    }
    results.profiles.truncate(5);
    results.profiles[0].lost = 1_234;
    results.profiles[1].samples = 40;
    results
}

/// One path, one route, one size, one round, nothing counted.
pub(crate) fn least() -> Results {
    let mut results = results(&Plan {
        models: MODELS[2..3].to_vec(),
        sizes: vec![1 << 20],
        rounds: 1,
        noise: 0.0,
        contenders: vec![Contender::Zhaul],
    });
    for cell in &mut results.cells {
        cell.counted.clear();
    }
    results.profiles.clear();
    results.skipped.clear();
    results.methods.clear();
    results.missing.clear();
    results.notes.clear();
    results
}

/// Not even that.
pub(crate) fn nothing() -> Results {
    let mut results = least();
    results.cells.clear();
    results.interrupted = true;
    results.seconds = f64::NAN;
    results
}

/// Numbers at and beyond the edges: nothing moved, no time, all of time, none of a number.
pub(crate) fn absurd() -> Results {
    let mut results = results(&Plan {
        sizes: vec![1, 2, 3, 1 << 30, 1 << 40],
        ..Plan::whole()
    });
    for cell in &mut results.cells {
        cell.bytes = match cell.bytes {
            2 => 0,
            size if size == 1 << 40 => u64::MAX,
            size => size,
        };
    }
    results.chunk_bytes = 0;
    results.seconds = f64::INFINITY;
    let extremes = [
        0.0,
        f64::NAN,
        f64::INFINITY,
        -1.0,
        1e-300,
        1e300,
        f64::MIN_POSITIVE,
        7.0,
    ];
    let values = extremes.iter().cycle();
    for (index, (cell, &value)) in results.cells.iter_mut().zip(values).enumerate() {
        for sample in &mut cell.samples {
            if index % 2 == 0 {
                sample.wall_s = value;
                sample.mover.system_s = value;
            } else {
                sample.bytes = [0, 1, u64::MAX][index / 2 % 3];
            }
        }
        for counted in &mut cell.counted {
            counted.bytes = [0, 1, u64::MAX][index % 3];
            counted.calls = Some(u64::MAX);
            counted.sampled_copies_per_byte = Some(value);
        }
    }
    for profile in &mut results.profiles {
        profile.parts.clear();
        profile.samples = 0;
    }
    results.profiles[0].parts.insert(Part::Copy, u64::MAX / 8);
    results
}

/// Names that want to be markup, script, or very long.
pub(crate) fn hostile() -> Results {
    const NASTY: &str = "</script><script>alert(1)</script><!-- \"'&amp; <img src=x onerror=alert(2)> ]]> \
                         \u{202e}\u{0}éß🙂";
    let long = "averyveryverylongnamewithoutanyspace".repeat(8);
    let mut results = whole();
    results.zhaul = NASTY.into();
    results.began = NASTY.into();
    results.host.cpu = NASTY.into();
    results.host.kernel = long.clone();
    results.host.file_system = NASTY.into();
    results.host.load = NASTY.into();
    for (index, cell) in results.cells.iter_mut().enumerate() {
        match index / 8 % 7 {
            3 => cell.route = NASTY.into(),
            5 => cell.route = long.clone(),
            _ => {}
        }
    }
    for profile in &mut results.profiles {
        profile.route = NASTY.into();
        profile.top.push((long.clone(), 3));
        profile.top.push((NASTY.into(), 2));
    }
    results.notes.push(NASTY.into());
    results.missing.insert(NASTY.into(), long.clone());
    for skipped in &mut results.skipped {
        skipped.route = NASTY.into();
        skipped.why = format!("{NASTY}{long}");
    }
    results.methods.insert(
        NASTY.into(),
        Found {
            method: Method::Plan,
            how: long,
        },
    );
    results
}
