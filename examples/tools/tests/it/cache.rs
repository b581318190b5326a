//! Tests that the load balancer answers for the results service with what is the same for all viewers, and only that.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use vote_testkit::{Response, http};

use crate::{
    load_balancer::{Dns, LoadBalancer, NONE, Ports, Tasks},
    world::{Process, World, cookie, eventually, vote},
};

const POLLS: &str = "[[poll]]\nslug = \"pets\"\ntitle = \"Pets?\"\n\
    options = [{ slug = \"cats\", label = \"Cats\" }, { slug = \"dogs\", label = \"Dogs\" }]\n\
    [[poll]]\nslug = \"secret\"\ntitle = \"Secret?\"\nresults = \"after-close\"\n\
    options = [{ slug = \"cats\", label = \"Cats\" }, { slug = \"dogs\", label = \"Dogs\" }]\n";

/// A pipeline behind a load balancer.
struct Site {
    world: World,
    _worker: Process,
    _dns: Dns,
    load_balancer: LoadBalancer,
}

impl Site {
    fn start() -> Self {
        let world = World::with_polls(1, POLLS);
        let worker = world.worker("1");
        world.wait_until_ready();
        let dns = Dns::start();
        dns.set("tasks.showing", vec![Ipv4Addr::LOCALHOST]);
        let ports = Ports { public: world.results.public.port(), admin: world.results.admin.port() };
        let load_balancer = LoadBalancer::start(&dns, NONE, ports, &[]);
        let site = Self { world, _worker: worker, _dns: dns, load_balancer };
        eventually("the load balancer shows results", Duration::from_secs(20), || {
            site.get("/polls/pets/results.json", &[]).status == 200
        });
        site
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        http(self.load_balancer.results, "GET", path, headers, b"").unwrap()
    }

    /// Sends these requests again and again for three seconds, and asserts that at most one per second reached the
    /// results service for each address.
    #[track_caller]
    fn watch(&self, addresses: u64, requests: &[(&str, &[(&str, &str)])]) {
        let before = self.load_balancer.requests_to_results();
        let (start, mut sent) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(3) {
            for (path, headers) in requests {
                self.get(path, headers);
                sent += 1;
            }
        }
        let reached = self.load_balancer.requests_to_results() - before;
        // The first second may have begun before, and the last one may not have ended.
        let most = addresses * (start.elapsed().as_secs() + 2);
        println!("{addresses} address(es): {sent} requests in 3 s, {reached} of them to the results service");
        assert!(sent > 10 * most, "{sent} requests are too few to show anything");
        assert!((1..=most).contains(&reached), "{reached} of {sent} requests reached the results service");
    }
}

#[test]
fn however_many_viewers_there_are_the_results_service_gets_one_request_per_second() {
    let site = Site::start();
    let json = "/polls/pets/results.json";
    let tag = site.get(json, &[]).header("etag").expect("results have an entity tag").to_owned();
    // Of viewers who reload the page, have an older copy or the current one, or choose a query nobody else uses.
    let requests: [(&str, &[(&str, &str)]); 6] = [
        (json, &[]),
        (json, &[("Cache-Control", "no-cache"), ("Pragma", "no-cache")]),
        (json, &[("If-None-Match", "\"another\"")]),
        (json, &[("If-None-Match", tag.as_str())]),
        (json, &[("Cookie", "voter=1")]),
        ("/polls/pets/results.json?1", &[]),
    ];
    site.watch(1, &requests);
    site.watch(2, &[("/polls/pets", &[]), ("/polls/pets/results.csv", &[])]);
}

#[test]
fn what_is_for_one_viewer_or_must_be_current_always_reaches_the_results_service() {
    let site = Site::start();
    for path in
        ["/status", "/status.json", "/receipts/unknown", "/polls/missing", "/polls/secret/results.csv"]
    {
        let before = site.load_balancer.requests_to_results();
        let statuses: Vec<u16> = (0..10).map(|_| site.get(path, &[]).status).collect();
        let reached = site.load_balancer.requests_to_results() - before;
        assert_eq!(reached, 10, "{path}: {statuses:?}");
    }
}

#[test]
fn a_response_with_a_cookie_is_not_kept_for_others() {
    let (dns, tasks) = (Dns::start(), Tasks::start());
    dns.set("tasks.showing", Tasks::first(1));
    let load_balancer = LoadBalancer::start(&dns, NONE, tasks.ports(), &[]);
    let get = || http(load_balancer.results, "GET", "/polls/pets", &[], b"").unwrap();
    eventually("the task answers", Duration::from_secs(10), || get().status == 200);
    let before = load_balancer.requests_to_results();
    for _ in 0..10 {
        assert!(get().header("set-cookie").is_some());
    }
    assert_eq!(load_balancer.requests_to_results() - before, 10);
}

#[test]
fn a_viewer_with_the_current_copy_gets_304_and_with_an_older_one_the_new_results() {
    let site = Site::start();
    let json = "/polls/pets/results.json";
    let tag_of = |answer: &Response| answer.header("etag").unwrap().to_owned();
    // The request that fetches a new copy for the cache gets all of it.
    eventually("the cache compares entity tags", Duration::from_secs(5), || {
        let tag = tag_of(&site.get(json, &[]));
        let answer = site.get(json, &[("If-None-Match", &tag)]);
        answer.status == 304 && tag_of(&answer) == tag
    });

    let old = tag_of(&site.get(json, &[]));
    let frontend = site.world.frontends[0].public;
    assert_eq!(vote(frontend, "cats", &cookie(frontend)).status, 202);
    eventually("the new results are shown", Duration::from_secs(10), || {
        let answer = site.get(json, &[("If-None-Match", &old)]);
        answer.status == 200 && answer.text().contains("\"total\":1")
    });
}

#[test]
fn the_figures_of_a_withheld_poll_are_shown_through_the_cache_once_it_is_final() {
    let site = Site::start();
    let frontend = site.world.frontends[0].public;
    let voter = cookie(frontend);
    assert_eq!(crate::world::vote_in(frontend, "secret", "cats", &voter).unwrap().status, 202);
    eventually("the vote is counted", Duration::from_secs(10), || {
        site.world.psql("SELECT count(*) FROM vote.votes") == "1"
    });
    std::thread::sleep(Duration::from_secs(2));
    assert!(site.get("/polls/secret/results.json", &[]).text().contains("\"total\":null"));
    assert_eq!(site.get("/polls/secret/results.csv", &[]).status, 403);
    site.world.must("vote-worker", &["polls", "close", "secret"]);
    eventually("the figures are shown", Duration::from_secs(30), || {
        site.get("/polls/secret/results.json", &[]).text().contains("\"total\":1")
            && site.get("/polls/secret/results.csv", &[]).status == 200
    });
}
