//! Asks `vote-results audit` again and again, and notes what it says.

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

/// How long one audit may take. A Postgres that is frozen does not answer at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the audit said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The law holds, and all is drained.
    Holds,
    /// So far it holds.
    NotDrained(String),
    /// It is broken, and how.
    Broken(String),
    /// It could not be asked, for this reason.
    Unavailable(String),
}

/// How to ask.
#[derive(Debug, Clone)]
pub(crate) struct Auditor {
    pub(crate) program: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
}

impl Auditor {
    /// Asks once.
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
            if start.elapsed() > PATIENCE {
                // It may have ended just now.
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        match child.wait_with_output() {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stdout);
                judge(output.status.code(), &said, &String::from_utf8_lossy(&output.stderr))
            }
            Err(e) => Verdict::Unavailable(e.to_string()),
        }
    }
}

/// What an exit code and an output mean. A verdict must be said twice, by the code and in the text: a code alone may be
/// that of anything.
fn judge(code: Option<i32>, said: &str, errors: &str) -> Verdict {
    let json: Value =
        said.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    let json = if json.is_null() { serde_json::from_str(said).unwrap_or_default() } else { json };
    let texts = |field: &str| match json[field].as_array() {
        Some(texts) => {
            texts.iter().map(|p| p.as_str().map_or_else(|| p.to_string(), str::to_owned)).collect::<Vec<_>>()
        }
        None => Vec::new(),
    };
    match (code, json["verdict"].as_str()) {
        (Some(0), Some("holds")) => Verdict::Holds,
        (Some(1), Some("broken")) => Verdict::Broken(texts("problems").join("; ")),
        (Some(2), Some("not-drained")) => Verdict::NotDrained(texts("outstanding").join("; ")),
        (code, verdict) => {
            Verdict::Unavailable(format!("exit code {code:?}, verdict {verdict:?}: {}", errors.trim()))
        }
    }
}

/// What was heard so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    /// How often it answered.
    pub(crate) audits: u64,
    /// How often it could not be asked.
    pub(crate) unavailable: u64,
    /// What it found wrong, each time, with the second of the run.
    pub(crate) failures: Vec<String>,
}

/// A thread that asks at intervals.
#[derive(Debug)]
pub(crate) struct Audits {
    stop: Arc<AtomicBool>,
    heard: Arc<Mutex<Heard>>,
    thread: Option<JoinHandle<()>>,
}

impl Audits {
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

    /// Asks no more; what was heard.
    pub(crate) fn end(mut self) -> Heard {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic is printed, and the audits that are missing show.
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

/// Counts an answer, and says what is wrong when it is heard.
pub(crate) fn note(heard: &mut Heard, start: Instant, verdict: &Verdict) {
    let second = start.elapsed().as_secs_f64();
    match verdict {
        Verdict::Holds | Verdict::NotDrained(_) => heard.audits += 1,
        Verdict::Broken(problems) => {
            heard.audits += 1;
            let failure = format!("the audit after {second:.0} s: {problems}");
            eprintln!("faults: {failure}");
            heard.failures.push(failure);
        }
        Verdict::Unavailable(why) => {
            heard.unavailable += 1;
            eprintln!("faults: no audit after {second:.0} s: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_the_code_and_the_text() {
        assert_eq!(judge(Some(0), r#"{"verdict": "holds", "problems": []}"#, ""), Verdict::Holds);
        let broken = r#"{"verdict": "broken", "problems": ["one", "two"]}"#;
        assert_eq!(judge(Some(1), broken, ""), Verdict::Broken("one; two".to_owned()));
        let waiting = r#"{"verdict": "not-drained", "problems": [], "outstanding": ["3 entries"]}"#;
        assert_eq!(judge(Some(2), waiting, ""), Verdict::NotDrained("3 entries".to_owned()));
    }

    #[test]
    fn the_text_may_have_many_lines() {
        assert_eq!(judge(Some(0), "{\n\"verdict\":\n\"holds\"\n}\n", ""), Verdict::Holds);
    }

    #[test]
    fn a_code_without_the_verdict_is_none() {
        for (code, said) in [
            (Some(1), ""),
            (Some(69), ""),
            (None, r#"{"verdict": "holds"}"#),
            (Some(0), r#"{"verdict": "broken"}"#),
        ] {
            assert!(matches!(judge(code, said, "why"), Verdict::Unavailable(why) if why.contains("why")));
        }
    }
}
