//! A Postgres that can be killed, frozen and starved, with the role and database of the pipeline.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::verify::{Counted, Row};

/// Few, so that they are taken quickly. The pipeline needs about 20.
const SLOTS: &str = "40";
/// The role of the pipeline, no superuser: those have slots of their own.
const ROLE: &str = "vote";

/// The server.
#[derive(Debug)]
pub(crate) struct Postgres {
    server: vote_testkit::Postgres,
    frozen: Vec<u32>,
}

impl Postgres {
    /// Starts it with an empty database.
    pub(crate) fn start() -> Self {
        let server = vote_testkit::Postgres::start_with(&[("max_connections", SLOTS)]);
        server.psql("postgres", &format!("CREATE ROLE {ROLE} LOGIN"));
        server.psql("postgres", &format!("CREATE DATABASE {ROLE} OWNER {ROLE} TEMPLATE template0"));
        Self { server, frozen: Vec::new() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.server.port()).into()
    }

    /// The store by way of `address`.
    pub(crate) fn url(address: SocketAddr) -> String {
        // Without TLS, so that a proxy can read along.
        format!("postgres://{ROLE}@{address}/{ROLE}?sslmode=disable")
    }

    pub(crate) fn log(&self) -> String {
        self.server.log()
    }

    pub(crate) fn restart(&self) {
        self.server.restart();
    }

    pub(crate) fn restart_immediate(&self) {
        self.server.restart_immediate();
    }

    /// kill -9 of all its processes at once, as when the machine goes.
    ///
    /// # Errors
    /// When its processes can't be told.
    pub(crate) fn kill(&self) -> Result<(), String> {
        let server = self.server.pid();
        let mut all = children(server)?;
        all.insert(0, server);
        signal("KILL", &all)
    }

    /// # Errors
    /// When its processes can't be told.
    pub(crate) fn freeze(&mut self) -> Result<(), String> {
        let server = self.server.pid();
        // The one that makes the others first, so that there are no new ones.
        signal("STOP", &[server])?;
        self.frozen = children(server)?;
        signal("STOP", &self.frozen)?;
        self.frozen.push(server);
        Ok(())
    }

    /// # Errors
    /// When there is no shell.
    pub(crate) fn thaw(&mut self) -> Result<(), String> {
        signal("CONT", &std::mem::take(&mut self.frozen))
    }

    /// Ends all sessions of the pipeline.
    pub(crate) fn terminate_sessions(&self) {
        let all = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'");
        self.server.psql(ROLE, &all);
    }

    /// What it holds now, in one snapshot.
    ///
    /// # Errors
    /// When a row can't be read.
    pub(crate) fn counted(&self) -> Result<Counted, String> {
        let text = self.server.psql(
            ROLE,
            "BEGIN ISOLATION LEVEL REPEATABLE READ;
             SELECT 'row', coalesce(p.slug, v.poll::text), replace(v.voter::text, '-', ''),
                    coalesce(o.slug, v.option::text), (extract(epoch FROM v.cast_at) * 1000000)::bigint
             FROM vote.votes v LEFT JOIN vote.polls p USING (poll) LEFT JOIN vote.options o USING (poll, option);
             SELECT 'tally', coalesce(p.slug, t.poll::text), coalesce(o.slug, t.option::text), sum(t.n)
             FROM vote.tally t LEFT JOIN vote.polls p USING (poll) LEFT JOIN vote.options o USING (poll, option)
             GROUP BY 2, 3;
             COMMIT;",
        );
        let mut counted = Counted::default();
        for line in text.lines() {
            let unreadable = || format!("a row can't be read: {line}");
            let fields: Vec<&str> = line.split('|').collect();
            match fields[..] {
                ["row", poll, voter, option, cast_at] => counted.rows.push(Row {
                    poll: poll.to_owned(),
                    voter: vote_core::VoterKey(
                        u128::from_str_radix(voter, 16).map_err(|_| unreadable())?.to_be_bytes(),
                    ),
                    option: option.to_owned(),
                    cast_at: cast_at.parse().map_err(|_| unreadable())?,
                }),
                ["tally", poll, option, n] => {
                    let n = n.parse().map_err(|_| unreadable())?;
                    counted.tally.insert((poll.to_owned(), option.to_owned()), n);
                }
                _ => return Err(unreadable()),
            }
        }
        Ok(counted)
    }

    /// Rows of the ledger in which something accepted is not accounted for, or more than that.
    pub(crate) fn unbalanced(&self) -> Vec<String> {
        let text = self.server.psql(
            ROLE,
            "SELECT * FROM vote.ledger WHERE accepted <> new_voters + superseded + quarantined
             ORDER BY queue, partition, poll LIMIT 20",
        );
        text.lines().map(|row| format!("the ledger does not add up: {row}")).collect()
    }

    /// How many votes of a queue are accounted for, by partition and poll as `0:pets`.
    pub(crate) fn accounted(&self, queue: &str) -> BTreeMap<String, u64> {
        let rows =
            format!("SELECT partition || ':' || poll, accepted FROM vote.ledger WHERE queue = '{queue}'");
        let text = self.server.psql(ROLE, &rows);
        text.lines().filter_map(|line| line.rsplit_once('|')).filter_map(pair).collect()
    }

    /// Takes every connection slot there is and every one that gets free, until dropped.
    pub(crate) fn take_slots(&self) -> Slots {
        let (stop, address) = (Arc::new(AtomicBool::new(false)), self.address());
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut held = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                match connect(address) {
                    Ok(connection) => held.push(connection),
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Slots { stop, thread: Some(thread) }
    }
}

/// Connection slots that are taken.
#[derive(Debug)]
pub(crate) struct Slots {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic would be of no more consequence than its end.
            let _ = thread.join();
        }
    }
}

/// A session that does nothing: a startup message (version 3.0), and the first answer, which is `R` or an error.
fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let parameters = format!("user\0{ROLE}\0database\0{ROLE}\0\0");
    let length = u32::try_from(8 + parameters.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &[0, 3, 0, 0], parameters.as_bytes()].concat())?;
    let mut letter = [0];
    stream.read_exact(&mut letter)?;
    if letter == *b"R" { Ok(stream) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
}

fn pair((name, count): (&str, &str)) -> Option<(String, u64)> {
    Some((name.to_owned(), count.parse().ok()?))
}

/// The processes that a process started, as Linux tells.
fn children(of: u32) -> Result<Vec<u32>, String> {
    let path = format!("/proc/{of}/task/{of}/children");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    text.split_whitespace().map(|pid| pid.parse().map_err(|_| format!("{path}: {text}"))).collect()
}

/// Sends a signal to processes; those that have ended meanwhile do not matter.
fn signal(signal: &str, pids: &[u32]) -> Result<(), String> {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    Command::new("sh")
        .args(["-c", "s=$1; shift; for p; do kill -s \"$s\" \"$p\"; done 2>/dev/null", "sh", signal])
        .args(&pids)
        .status()
        .map(drop)
        .map_err(|e| format!("can't run sh: {e}"))
}
