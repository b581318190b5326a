//! What a vote costs the whole pipeline, compared with another build of the services: runs of `deploy/million`.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use vote_testkit::Service;

use crate::{
    args::Pipeline,
    compare::{Bar, Costs, Ratio, report},
};

/// What `deploy/million` puts before each figure.
const FIGURE: &str = "deploy/million: ";

/// Runs `deploy/million`, which must be exact, and returns the CPU time of a vote, in microseconds.
fn million(folder: &Path, args: &Pipeline) -> f64 {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/million");
    let mut command = Command::new(script);
    command.arg("--build").arg(folder).arg(args.voters.to_string());
    if let Some(rate) = args.rate {
        command.arg("--rate").arg(rate.to_string());
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "deploy/million failed: {log}");
    let mut sum = 0.0;
    for (service, used) in log.lines().filter_map(|line| line.strip_prefix(FIGURE)?.split_once(' ')) {
        if service != "together" {
            let used: f64 = used.parse().unwrap();
            eprint!("{service} {used}, ");
            sum += used;
        }
    }
    eprintln!("together {sum:.1} µs");
    sum
}

/// Measures the CPU time of all services.
pub(crate) fn run(args: &Pipeline) -> Value {
    let ours = Service::binary("vote-worker");
    let mut sides = [("this build", ours.parent().unwrap()), ("the other build", &args.base)]
        .map(|(name, folder)| (folder, Costs { name, ..Costs::default() }));
    for round in 1..=args.rounds {
        for (folder, costs) in &mut sides {
            eprint!("speed: round {round}: {}: ", costs.name);
            costs.of_rounds.push(million(folder, args));
        }
    }
    let [ours, base] = sides.map(|(_, costs)| costs);
    let ratio = Ratio::new(("whole pipeline", "the other build"), Bar::AtMost(0.55), &ours, &base);
    report("CPU of all services for a vote, µs", &[ours, base], &[ratio])
}
