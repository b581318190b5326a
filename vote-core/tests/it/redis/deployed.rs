//! The Redis of the deployment: its settings, its users, and the command lines that start it.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use vote_core::{
    Queue,
    conformance::{activate, frames, layout, poll, vote},
    queue::{Appended, RedisQueue, Usage},
};

use super::eventually;

fn deploy(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns the arguments of the server in the unit for systemd.
fn unit_arguments() -> Vec<String> {
    let unit = deploy("systemd/vote-redis.service");
    let command = unit.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
    let (_, after) = command.split_once("redis-server ").unwrap();
    after.split_whitespace().map(str::to_owned).collect()
}

/// Returns the arguments of the server in a file for containers.
fn container_arguments(name: &str) -> Vec<String> {
    let file = deploy(name);
    let command = file.lines().find(|line| line.contains("entrypoint: [flock")).unwrap();
    let (_, after) = command.trim_end_matches(']').split_once("redis-server, ").unwrap();
    after.split(", ").map(str::to_owned).collect()
}

struct Deployed {
    dir: TempDir,
    server: Child,
}

impl Deployed {
    /// Starts a server with these arguments; all `places` in them and in its settings are replaced by one folder.
    fn start(arguments: &[String], places: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/make-secrets");
        let made = Command::new(script).arg(dir.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let here = dir.path().to_str().unwrap();
        let moved = |text: &str| places.iter().fold(text.to_owned(), |text, place| text.replace(place, here));
        fs::write(dir.path().join("redis.conf"), moved(&deploy("redis/redis.conf"))).unwrap();
        let server = Command::new("redis-server")
            .args(arguments.iter().map(|argument| moved(argument)))
            // Reachable through its socket only.
            .args(["--port", "0"])
            .current_dir("/")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { dir, server }
    }

    fn connect(&self, user: &str) -> RedisQueue {
        let password = fs::read_to_string(self.dir.path().join(format!("redis_{user}_password"))).unwrap();
        let socket = self.dir.path().join("redis.sock");
        RedisQueue::connect(&format!("redis+unix://{user}:{password}@redis{}", socket.display()), "vote")
            .unwrap()
    }
}

impl Drop for Deployed {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

async fn accepts_votes(arguments: &[String], places: &[&str]) {
    let redis = Deployed::start(arguments, places);
    let (frontend, worker) = (redis.connect("frontend"), redis.connect("worker"));
    let id = eventually(async || frontend.create(layout(), None).await).await;
    assert_eq!(frontend.durability_problems().await.unwrap(), []);
    let Some(Usage { limit: Some(limit), .. }) = frontend.usage().await.unwrap() else {
        panic!("it has no limit")
    };
    assert!(limit > 1 << 30, "{limit}");
    activate(&worker, id, &[poll()]).await.unwrap();
    let appended = frontend.append(id, &frames(&[vote(1, 0, 1)])).await.unwrap();
    assert!(matches!(appended[..], [Appended::Stored(_)]), "{appended:?}");
    assert!(
        redis.dir.path().join("appendonlydir").exists(),
        "the append-only file is where the command line says"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn under_systemd_it_accepts_votes() {
    // Folders of the machine and of the unit, and systemd's folder of credentials.
    accepts_votes(&unit_arguments(), &["/etc/vote", "/run/vote", "/var/lib/vote-redis", "%d"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_containers_it_accepts_votes() {
    let stack_arguments = container_arguments("stack.yml");
    accepts_votes(&stack_arguments, &["/usr/local/etc/redis", "/run/vote", "/data", "/run/secrets"]).await;
    assert_eq!(container_arguments("compose.yml"), stack_arguments);
}
