//! HAProxy with the configuration of the deployment, and stand-ins for what it finds in a Swarm: Docker's DNS and the
//! tasks of a service.

use std::{net::SocketAddr, path::Path};

use vote_testkit::{Haproxy, free_port, http_get};

mod dns;
mod tasks;

pub(crate) use dns::{Dns, Mode};
pub(crate) use tasks::Tasks;

/// Public and admin port of the tasks of a service.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) public: u16,
    pub(crate) admin: u16,
}

/// Ports on which nothing listens.
pub(crate) const NONE: Ports = Ports { public: 1, admin: 1 };

pub(crate) struct LoadBalancer {
    haproxy: Haproxy,
    /// Where it answers for the results service.
    pub(crate) results: SocketAddr,
    metrics: String,
}

impl LoadBalancer {
    /// Starts HAProxy with the deployment's configuration, in which only the address of the DNS and the ports are
    /// replaced.
    pub(crate) fn start(dns: &Dns, frontends: Ports, results: Ports, environment: &[(&str, &str)]) -> Self {
        Self::with(&deployed(), dns, frontends, results, environment)
    }

    /// Starts HAProxy with a variant of the deployment's configuration.
    pub(crate) fn with(
        config: &str,
        dns: &Dns,
        frontends: Ports,
        results: Ports,
        environment: &[(&str, &str)],
    ) -> Self {
        let [voting, showing, metrics] = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let replaced = [
            ("127.0.0.11:53", dns.address().to_string()),
            ("bind :8080", format!("bind {voting}")),
            ("bind :8081", format!("bind {showing}")),
            ("bind :8404", format!("bind {metrics}")),
            (
                "tasks.voting:8080 port 9081",
                format!("tasks.voting:{} port {}", frontends.public, frontends.admin),
            ),
            (
                "tasks.showing:8081 port 9083",
                format!("tasks.showing:{} port {}", results.public, results.admin),
            ),
        ];
        let mut config = config.to_owned();
        for (from, to) in replaced {
            config = replace(&config, from, &to);
        }
        // Without a maximum, HAProxy takes as many files as the machine allows, and most of its memory.
        let mut all = vec![("LB_MAXCONN", "1000")];
        all.extend(environment);
        let haproxy = Haproxy::start(&config, &all, &metrics.to_string());
        Self { haproxy, results: showing, metrics: metrics.to_string() }
    }

    /// Returns the sum of those samples of a metric whose labels contain this text.
    pub(crate) fn metric(&self, scope: &str, name: &str, labels: &str) -> f64 {
        let text = http_get(&self.metrics, &format!("/metrics?scope={scope}")).text();
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, of) = series.split_once('{')?;
            if found == name && of.contains(labels) { value.parse::<f64>().ok() } else { None }
        });
        let values: Vec<f64> = values.collect();
        assert!(!values.is_empty(), "HAProxy exports {name} with {labels}\n{}", self.haproxy.tail());
        values.iter().sum()
    }

    /// Returns the number of frontends that get requests.
    pub(crate) fn usable(&self) -> usize {
        self.metric("backend", "haproxy_backend_active_servers", "proxy=\"frontends\"") as usize
    }

    /// Returns the number of places for frontends that no task has taken.
    pub(crate) fn free_places(&self) -> usize {
        let labels = "proxy=\"frontends\",state=\"MAINT\"";
        self.metric("backend", "haproxy_backend_agg_server_status", labels) as usize
    }

    /// Returns the number of requests that the results service has answered.
    pub(crate) fn requests_to_results(&self) -> u64 {
        self.metric("server", "haproxy_server_http_responses_total", "proxy=\"results\"") as u64
    }
}

/// Returns the configuration of the deployment.
pub(crate) fn deployed() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/haproxy/haproxy.cfg");
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Replaces all occurrences of a text, which must have one.
pub(crate) fn replace(config: &str, from: &str, to: &str) -> String {
    assert!(config.contains(from), "deploy/haproxy/haproxy.cfg has no `{from}`");
    config.replace(from, to)
}
