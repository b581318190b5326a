//! Tests that the load balancer finds all frontends, and keeps them while Docker's DNS fails.

use std::time::{Duration, Instant};

use crate::{
    load_balancer::{Dns, LoadBalancer, Mode, NONE, Tasks, deployed, replace},
    world::eventually,
};

const NAME: &str = "tasks.voting";
/// Leaves most of the machine to other tests.
const SELDOM_CHECKED: [(&str, &str); 1] = [("LB_CHECK_INTERVAL", "2s")];

/// A load balancer and the tasks that it distributes requests over.
struct Site {
    dns: Dns,
    tasks: Tasks,
    load_balancer: LoadBalancer,
}

impl Site {
    fn start(environment: &[(&str, &str)]) -> Self {
        Self::with(&deployed(), environment)
    }

    fn with(config: &str, environment: &[(&str, &str)]) -> Self {
        let (dns, tasks) = (Dns::start(), Tasks::start());
        let load_balancer = LoadBalancer::with(config, &dns, tasks.ports(), NONE, environment);
        Self { dns, tasks, load_balancer }
    }

    /// Raises the number of tasks, and waits until all are usable. Asserts that meanwhile no usable one was lost.
    #[track_caller]
    fn grow(&self, from: usize, to: usize) {
        self.dns.set(NAME, Tasks::first(to));
        let took = eventually(&format!("{to} frontends are usable"), Duration::from_secs(20), || {
            let usable = self.load_balancer.usable();
            assert!(usable >= from, "from {from} to {to} tasks: {usable} usable");
            usable == to
        });
        println!("{from} -> {to} tasks: all usable after {:.1} s", took.as_secs_f64());
    }

    /// Asserts for this time that exactly this number of tasks is usable.
    #[track_caller]
    fn stays(&self, usable: usize, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            assert_eq!(self.load_balancer.usable(), usable, "{:?} before the end", end - Instant::now());
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    #[track_caller]
    fn becomes(&self, usable: usize, within: Duration) {
        let what = format!("{usable} frontends are usable");
        eventually(&what, within, || self.load_balancer.usable() == usable);
    }
}

/// The DNS fails in this way for this time, while 100 of 2,300 tasks stop and come back.
#[track_caller]
fn fail(site: &Site, mode: Mode, time: Duration) {
    let (all, stopped) = (2300, 100);
    let start = Instant::now();
    site.dns.set_mode(mode);
    site.stays(all, Duration::from_secs(2));
    site.tasks.set_gone(&Tasks::first(stopped));
    // Two failed checks, at most 2 s and 1 s apart.
    site.becomes(all - stopped, Duration::from_secs(12));
    site.tasks.set_gone(&[]);
    site.becomes(all, Duration::from_secs(12));
    site.stays(all, time.saturating_sub(start.elapsed()));
    println!("{mode:?} for {:.0} s: {all} usable", start.elapsed().as_secs_f64());
    site.dns.set_mode(Mode::Answers);
}

fn grown() -> Site {
    let site = Site::start(&SELDOM_CHECKED);
    for (from, to) in [(0, 250), (250, 291), (291, 292), (292, 1000), (1000, 2300)] {
        site.grow(from, to);
    }
    assert_eq!(site.load_balancer.free_places(), 0, "what the alert LoadBalancerFull looks at");
    site
}

/// Tasks that the DNS no longer lists lose their places, and others get them.
#[track_caller]
fn assert_places_are_reused(site: &Site) {
    site.dns.set(NAME, Tasks::first(2200));
    site.becomes(2200, Duration::from_secs(20));
    assert_eq!(site.load_balancer.free_places(), 100);
    let mut others = Tasks::first(2400);
    others.drain(2200..2300);
    site.dns.set(NAME, others);
    site.becomes(2300, Duration::from_secs(20));
}

#[test]
fn no_frontend_is_lost_as_their_number_grows_to_2300_and_while_the_dns_is_dead() {
    let site = grown();
    fail(&site, Mode::Silent, Duration::from_secs(45));
    assert_places_are_reused(&site);
}

/// `cargo test -p vote-tools --all-features --locked --test it -- --ignored --nocapture for_ten_minutes`
#[test]
#[ignore = "takes 21 minutes"]
fn no_frontend_is_lost_while_the_dns_is_dead_or_cuts_off_for_ten_minutes() {
    let site = grown();
    for mode in [Mode::Silent, Mode::CutsOff] {
        fail(&site, mode, Duration::from_secs(600));
        // A valid answer in between, so that each outage begins anew.
        std::thread::sleep(Duration::from_secs(5));
    }
    assert_places_are_reused(&site);
}

#[test]
fn no_frontend_is_lost_while_the_dns_fails_in_any_other_way() {
    let modes = [Mode::CutsOff, Mode::Fails, Mode::KnowsNoName, Mode::Refuses];
    let sites = modes.map(|mode| {
        let site = Site::start(&[]);
        site.grow(0, 10);
        site.dns.set_mode(mode);
        site
    });
    let end = Instant::now() + Duration::from_secs(45);
    while Instant::now() < end {
        for (site, mode) in sites.iter().zip(modes) {
            assert_eq!(
                site.load_balancer.usable(),
                10,
                "{mode:?}, {:?} before the end",
                end - Instant::now()
            );
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// Shows that the stand-in for Docker's DNS behaves as the DNS with which this was found.
#[test]
fn with_the_former_settings_the_292nd_frontend_takes_all_others_away() {
    let config = replace(&deployed(), "accepted_payload_size 65507", "accepted_payload_size 8192");
    let config = replace(&config, "hold other 1d", "hold other 30s");
    let site = Site::with(&config, &[]);
    site.grow(0, 291);
    site.dns.set(NAME, Tasks::first(292));
    site.becomes(0, Duration::from_secs(45));
}
