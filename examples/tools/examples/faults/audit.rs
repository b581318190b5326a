//! Runs `vote-results audit` at intervals and records its results.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Time limit of one audit, which otherwise hangs while Postgres is frozen.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Result of an audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The conservation invariant holds, and all queues are drained.
    Holds,
    /// The conservation invariant holds so far; the text names what is not drained.
    NotDrained(String),
    /// The conservation invariant is broken; the text names the problems.
    Broken(String),
    /// The audit gave no result, for this reason.
    Unavailable(String),
}

/// Program and environment of the audit.
#[derive(Debug, Clone)]
pub(crate) struct Auditor {
    pub(crate) program: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
}

impl Auditor {
    /// Runs the audit once.
    pub(crate) fn ask(&self) -> Verdict {
        let mut command = Command::new(&self.program);
        command.args(["audit", "--json"]).env_clear().envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) => return Verdict::Unavailable(format!("can't run {}: {e}", self.program.display())),
        };
        let start = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            if start.elapsed() > AUDIT_TIMEOUT {
                // An error only means that it has ended just now.
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        match child.wait_with_output() {
            Ok(output) => {
                let stdout = String::from_utf8_lossy(&output.stdout);
                judge(output.status.code(), &stdout, &String::from_utf8_lossy(&output.stderr))
            }
            Err(e) => Verdict::Unavailable(e.to_string()),
        }
    }
}

/// Returns the result for an exit code and an output. The code and the text must agree, since other failures may have
/// the same exit code.
fn judge(code: Option<i32>, stdout: &str, stderr: &str) -> Verdict {
    let json: Value =
        stdout.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    let json = if json.is_null() { serde_json::from_str(stdout).unwrap_or_default() } else { json };
    let text = |finding: &Value| finding["text"].as_str().map_or_else(|| finding.to_string(), str::to_owned);
    let texts = |field: &str| match json[field].as_array() {
        Some(findings) => findings.iter().map(text).collect::<Vec<_>>(),
        None => Vec::new(),
    };
    match (code, json["verdict"].as_str()) {
        (Some(0), Some("holds")) => Verdict::Holds,
        (Some(1), Some("broken")) => Verdict::Broken(texts("problems").join("; ")),
        (Some(2), Some("not-drained")) => Verdict::NotDrained(texts("outstanding").join("; ")),
        (code, verdict) => {
            Verdict::Unavailable(format!("exit code {code:?}, verdict {verdict:?}: {}", stderr.trim()))
        }
    }
}

/// Results of all audits so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    /// Number of audits that gave a result.
    pub(crate) audits: u64,
    /// Number of audits that gave no result.
    pub(crate) unavailable: u64,
    /// Problems found by each audit, with the second of the run.
    pub(crate) failures: Vec<String>,
}

/// Thread that runs the audit at intervals.
#[derive(Debug)]
pub(crate) struct Audits {
    stop: Arc<AtomicBool>,
    heard: Arc<Mutex<Heard>>,
    thread: Option<JoinHandle<()>>,
}

impl Audits {
    /// Starts the thread. `every` is the pause from the end of one audit to the start of the next.
    pub(crate) fn start(auditor: Auditor, every: Duration) -> Self {
        let (stop, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Heard::default())));
        let (stopping, hearing, start) = (Arc::clone(&stop), Arc::clone(&heard), Instant::now());
        let thread = std::thread::spawn(move || {
            let mut due = start + every;
            while !stopping.load(Ordering::Relaxed) {
                if Instant::now() < due {
                    std::thread::sleep(Duration::from_millis(50));
                    continue;
                }
                let verdict = auditor.ask();
                note(&mut hearing.lock().unwrap_or_else(PoisonError::into_inner), start, &verdict);
                due = Instant::now() + every;
            }
        });
        Self { stop, heard, thread: Some(thread) }
    }

    /// Stops the thread, and returns the results of all audits.
    pub(crate) fn end(mut self) -> Heard {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is printed, and shows in the number of audits.
            let _ = thread.join();
        }
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Audits {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Records a result, and prints it if something is wrong.
pub(crate) fn note(heard: &mut Heard, start: Instant, verdict: &Verdict) {
    let second = start.elapsed().as_secs_f64();
    match verdict {
        Verdict::Holds | Verdict::NotDrained(_) => heard.audits += 1,
        Verdict::Broken(problems) => {
            heard.audits += 1;
            let failure = format!("audit after {second:.0} s found problems: {problems}");
            eprintln!("faults: {failure}");
            heard.failures.push(failure);
        }
        Verdict::Unavailable(why) => {
            heard.unavailable += 1;
            eprintln!("faults: audit after {second:.0} s gave no result: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_the_exit_code_and_the_text() {
        assert_eq!(judge(Some(0), r#"{"verdict": "holds", "problems": []}"#, ""), Verdict::Holds);
        let broken = r#"{"verdict": "broken", "problems": [{"text": "one"}, {"text": "two"}]}"#;
        assert_eq!(judge(Some(1), broken, ""), Verdict::Broken("one; two".to_owned()));
        let not_drained =
            r#"{"verdict": "not-drained", "problems": [], "outstanding": [{"text": "3 entries"}]}"#;
        assert_eq!(judge(Some(2), not_drained, ""), Verdict::NotDrained("3 entries".to_owned()));
    }

    #[test]
    fn the_text_may_have_many_lines() {
        assert_eq!(judge(Some(0), "{\n\"verdict\":\n\"holds\"\n}\n", ""), Verdict::Holds);
    }

    #[test]
    fn an_exit_code_without_a_matching_verdict_is_no_result() {
        for (code, stdout) in [
            (Some(1), ""),
            (Some(69), ""),
            (None, r#"{"verdict": "holds"}"#),
            (Some(0), r#"{"verdict": "broken"}"#),
        ] {
            assert!(matches!(judge(code, stdout, "why"), Verdict::Unavailable(why) if why.contains("why")));
        }
    }
}
