//! Programs can be given a wall clock that is wrong.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vote_testkit::{Postgres, Service, SkewedClock};

/// Returns how far a time is ahead of the real one, both in seconds since 1970.
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
    // `printf` is built into bash, so it is the bash process itself that reads the clock.
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

#[test]
fn a_postgres_sees_its_clock_step_and_keeps_the_clock_after_a_restart() {
    let clock = SkewedClock::new(0);
    let postgres = Postgres::start_with_clock(&[], &clock);
    let ahead = || error(&postgres.psql("postgres", "SELECT floor(extract(epoch FROM clock_timestamp()))"));
    assert!(ahead().abs() <= 1);

    clock.step(600);
    assert!((ahead() - 600).abs() <= 1);

    postgres.restart_immediate();
    assert!((ahead() - 600).abs() <= 1);
}
