//! The processes that watch streams, one for each results service.

use std::{
    env,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::error::StreamsError;

/// Processes that watch streams. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Watchers {
    children: Vec<Child>,
    lines: mpsc::Receiver<Line>,
}

/// All streams of a service have received a number of votes, at a time in microseconds since 1970.
type Line = Option<(u64, i64)>;

impl Watchers {
    /// Starts a process for each service, which is given by its address and its number of streams.
    pub(crate) fn start(services: &[(SocketAddr, u32)]) -> Result<Self, StreamsError> {
        let program = env::current_exe().map_err(StreamsError::Start)?;
        let (sender, lines) = mpsc::channel();
        let mut watchers = Self { children: Vec::new(), lines };
        for (target, streams) in services {
            let mut command = Command::new(&program);
            command.args(["--watch", &target.to_string(), "--streams", &streams.to_string()]);
            command.stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = command.spawn().map_err(StreamsError::Start)?;
            let (output, sender) = (child.stdout.take(), sender.clone());
            watchers.children.push(child);
            thread::spawn(move || {
                let lines = output
                    .into_iter()
                    .flat_map(|output| BufReader::new(output).lines())
                    .map_while(Result::ok);
                for line in lines {
                    let fields = line
                        .split_once(' ')
                        .and_then(|(total, at)| Some((total.parse().ok()?, at.parse().ok()?)));
                    // The receiver is dropped only at the end.
                    let _ = sender.send(fields);
                }
                let _ = sender.send(None);
            });
        }
        Ok(watchers)
    }

    /// Waits until all streams have received a number of votes; returns the time in microseconds since 1970.
    pub(crate) fn wait_for(
        &self,
        total: u64,
        what: &'static str,
        limit: Duration,
    ) -> Result<i64, StreamsError> {
        let (started, mut waiting, mut last) = (Instant::now(), self.children.len(), i64::MIN);
        while waiting > 0 {
            let rest = limit.saturating_sub(started.elapsed());
            let line = self
                .lines
                .recv_timeout(rest)
                .map_err(|_| StreamsError::TooLate { what, seconds: limit.as_secs() })?;
            let (seen, at) = line.ok_or(StreamsError::WatcherEnded)?;
            if seen == total {
                waiting -= 1;
                last = last.max(at);
            }
        }
        Ok(last)
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
