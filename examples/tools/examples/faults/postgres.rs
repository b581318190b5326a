//! A Postgres that can be killed, frozen, deprived of connections and rolled back, with the role and database of the
//! pipeline.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use vote_testkit::SkewedClock;

use crate::{
    polls::PollState,
    verify::{Counted, Row},
};

/// Number of connection slots: few, so that they are taken quickly. The pipeline needs about 20.
const SLOTS: &str = "40";
/// Time limit for a superuser to get a connection.
const LET_IN_WITHIN: Duration = Duration::from_secs(10);
/// Role of the pipeline. Not a superuser, since superusers have reserved slots.
const ROLE: &str = "vote";

/// The server, and its processes that are frozen.
#[derive(Debug)]
pub(crate) struct Postgres {
    server: vote_testkit::Postgres,
    frozen: Vec<u32>,
}

impl Postgres {
    /// Starts the server with an empty database.
    pub(crate) fn start(clock: &SkewedClock) -> Self {
        let server = vote_testkit::Postgres::start_with_clock(&[("max_connections", SLOTS)], clock);
        server.psql("postgres", &format!("CREATE ROLE {ROLE} LOGIN"));
        server.psql("postgres", &format!("CREATE DATABASE {ROLE} OWNER {ROLE} TEMPLATE template0"));
        Self { server, frozen: Vec::new() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.server.port()).into()
    }

    /// Returns the URL of the store through `address`.
    pub(crate) fn url(address: SocketAddr) -> String {
        // Without TLS, so that a proxy can parse the data.
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

    /// Makes a copy of the current state, for which the server is stopped for a moment.
    ///
    /// # Errors
    /// Fails if the files can't be copied.
    pub(crate) fn keep(&self) -> Result<(), String> {
        self.server.stop();
        let [data, kept] = self.folders();
        // `-a` keeps the owner, which the server requires.
        let copied = run("cp", &["-a", &data, &kept]);
        self.server.restart();
        copied
    }

    /// Replaces the current state by the copy.
    ///
    /// # Errors
    /// Fails if there is no copy.
    pub(crate) fn roll_back(&self) -> Result<(), String> {
        self.server.stop_immediate();
        let [data, kept] = self.folders();
        run("rm", &["-rf", &data])?;
        run("mv", &[&kept, &data])?;
        self.server.restart();
        Ok(())
    }

    fn folders(&self) -> [String; 2] {
        ["data", "kept"].map(|name| self.server.dir().join(name).display().to_string())
    }

    /// Kills all processes of the server at once with SIGKILL, as when the machine fails.
    ///
    /// # Errors
    /// Fails if the processes can't be listed.
    pub(crate) fn kill(&self) -> Result<(), String> {
        let server = self.server.pid();
        let mut all = children(server)?;
        all.insert(0, server);
        signal("KILL", &all)
    }

    /// Stops all processes of the server with SIGSTOP.
    ///
    /// # Errors
    /// Fails if the processes can't be listed.
    pub(crate) fn freeze(&mut self) -> Result<(), String> {
        let server = self.server.pid();
        // The parent process first, so that it starts no more children.
        signal("STOP", &[server])?;
        self.frozen = children(server)?;
        signal("STOP", &self.frozen)?;
        self.frozen.push(server);
        Ok(())
    }

    /// Continues the processes that were frozen.
    ///
    /// # Errors
    /// Fails if the shell can't be run.
    pub(crate) fn thaw(&mut self) -> Result<(), String> {
        signal("CONT", &std::mem::take(&mut self.frozen))
    }

    /// Terminates all sessions of the pipeline.
    ///
    /// # Errors
    /// Fails if not even a superuser can connect within the time limit.
    pub(crate) fn terminate_sessions(&self) -> Result<(), String> {
        let all = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'");
        let start = Instant::now();
        loop {
            let mut psql = self.server.client("psql");
            let output = psql.args(["-qAtX", "-d", ROLE, "-c", &all]).stdin(Stdio::null()).output();
            let output = output.map_err(|e| format!("can't run psql: {e}"))?;
            if output.status.success() {
                return Ok(());
            }
            // A client that is refused still takes a slot for a moment, even one of those reserved for superusers.
            if start.elapsed() > LET_IN_WITHIN {
                return Err(format!("psql: {}", String::from_utf8_lossy(&output.stderr)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the states of all polls, in one snapshot.
    ///
    /// # Errors
    /// Fails if a row can't be parsed.
    pub(crate) fn polls(&self) -> Result<Vec<PollState>, String> {
        let text = self.server.psql(
            ROLE,
            "SELECT p.slug, p.closed_at IS NOT NULL, p.final_at IS NOT NULL,
                    coalesce((SELECT string_agg(o.slug || '=' || t.n, ' ' ORDER BY o.slug)
                              FROM (SELECT poll, option, sum(n) AS n FROM vote.tally GROUP BY poll, option) t
                              JOIN vote.options o USING (poll, option) WHERE t.poll = p.poll), '')
             FROM vote.polls p ORDER BY p.slug",
        );
        let read = |line: &str| match line.split('|').collect::<Vec<_>>()[..] {
            [poll, closed, last, tally] => Ok(PollState {
                poll: poll.to_owned(),
                is_closed: closed == "t",
                is_final: last == "t",
                tally: tally.to_owned(),
            }),
            _ => Err(format!("can't parse a row: {line}")),
        };
        text.lines().map(read).collect()
    }

    /// Returns the votes and the tally, in one snapshot.
    ///
    /// # Errors
    /// Fails if a row can't be parsed.
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
            let unreadable = || format!("can't parse a row: {line}");
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

    /// Returns the rows of the ledger that violate the conservation invariant.
    pub(crate) fn unbalanced(&self) -> Vec<String> {
        let text = self.server.psql(
            ROLE,
            "SELECT * FROM vote.ledger WHERE accepted <> new_voters + superseded + quarantined
             ORDER BY queue, partition, poll LIMIT 20",
        );
        text.lines().map(|row| format!("ledger row violates the conservation invariant: {row}")).collect()
    }

    /// Returns the accepted votes of a queue in the ledger, by partition and poll in the form `0:pets`.
    pub(crate) fn accounted(&self, queue: &str) -> BTreeMap<String, u64> {
        let rows =
            format!("SELECT partition || ':' || poll, accepted FROM vote.ledger WHERE queue = '{queue}'");
        let text = self.server.psql(ROLE, &rows);
        text.lines().filter_map(|line| line.rsplit_once('|')).filter_map(pair).collect()
    }

    /// Takes all free connection slots, and every slot that becomes free, until the result is dropped.
    pub(crate) fn take_slots(&self) -> Slots {
        let (stop, address) = (Arc::new(AtomicBool::new(false)), self.address());
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                match connect(address) {
                    Ok(connection) => connections.push(connection),
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Slots { stop, thread: Some(thread) }
    }
}

/// Connection slots that are taken; dropping it frees them.
#[derive(Debug)]
pub(crate) struct Slots {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread also frees the slots.
            let _ = thread.join();
        }
    }
}

/// Opens an idle session: sends a startup message (version 3.0), and reads the first letter of the answer, which is `R`
/// unless it is an error.
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

/// Returns the child processes of a process, from Linux's `/proc`.
fn children(of: u32) -> Result<Vec<u32>, String> {
    let path = format!("/proc/{of}/task/{of}/children");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    text.split_whitespace().map(|pid| pid.parse().map_err(|_| format!("{path}: {text}"))).collect()
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(e) => Err(format!("can't run {program}: {e}")),
    }
}

/// Sends a signal to processes, and ignores those that have ended meanwhile.
fn signal(signal: &str, pids: &[u32]) -> Result<(), String> {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    Command::new("sh")
        .args(["-c", "s=$1; shift; for p; do kill -s \"$s\" \"$p\"; done 2>/dev/null", "sh", signal])
        .args(&pids)
        .status()
        .map(drop)
        .map_err(|e| format!("can't run sh: {e}"))
}
