//! A program can be given a wall clock that is wrong.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vote_testkit::{Service, SkewedClock};

/// How far a time in seconds is from the right one.
fn error(seconds: &str) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    seconds.trim().parse::<i64>().unwrap() - i64::try_from(now).unwrap()
}

#[test]
fn a_program_sees_a_clock_that_is_ahead_or_behind() {
    for offset in [600, -600] {
        let clock = SkewedClock::new(offset);
        let date = Command::new("date").arg("+%s").envs(clock.environment()).output().unwrap();

        let error = error(&String::from_utf8(date.stdout).unwrap());
        assert!((error - offset).abs() <= 1, "{error} for {offset}");
    }
}

#[test]
fn a_running_program_sees_its_clock_step() {
    let clock = SkewedClock::new(0);
    // Bash tells the time itself.
    let script = "while :; do printf '%(%s)T\\n' -1; sleep 0.1; done";
    let bash = Path::new("/bin/bash");
    let service = Service::start(bash, &["-c", script], &clock.environment());
    let last = || error(service.log().lines().last().unwrap_or("0"));
    let sees = |offset: i64| {
        let deadline = Instant::now() + Duration::from_secs(5);
        while (last() - offset).abs() > 1 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        (last() - offset).abs() <= 1
    };
    assert!(sees(0), "{}", service.tail());

    clock.step(-600);

    assert!(sees(-600), "{}", service.tail());
}
