//! The page of a receipt, and the JSON with the same content.

use serde::Serialize;
use vote_service::respond::escape_html as escape;

use super::{REFRESH, page};
use crate::receipts::Fate;

/// What is said of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// A word for programs: that of the [`Fate`], or `unknown`.
    pub state: &'static str,
    /// The slug of the poll; none for what is no receipt.
    pub poll: Option<String>,
    /// For people.
    pub message: String,
}

impl Answer {
    /// What became of the vote that the receipt is for.
    #[must_use]
    pub fn of(fate: &Fate, poll: impl Into<String>) -> Self {
        Self { state: fate.name(), poll: Some(poll.into()), message: fate.message() }
    }

    /// It is no receipt of these services.
    #[must_use]
    pub fn unknown() -> Self {
        let message = "There is no such receipt here. Check that the address is complete: a receipt is a long text, \
                       and copying may have lost a part of it.";
        Self { state: "unknown", poll: None, message: message.to_owned() }
    }

    /// As a page; `title` is that of the poll, none where its results are not shown here.
    #[must_use]
    pub fn page(&self, title: Option<&str>) -> String {
        let class = match self.state {
            "counted" => "badge good",
            "lost" | "quarantined" => "badge bad",
            _ => "badge",
        };
        let mut content = format!(
            "<h1>Your receipt</h1>\n<p><span class=\"{class}\">{}</span></p>\n<p>{}</p>\n",
            self.state,
            escape(&self.message)
        );
        match (&self.poll, title) {
            (Some(poll), Some(title)) => {
                let (poll, title) = (escape(poll), escape(title));
                content.push_str(&format!("<p>Poll: <a href=\"/polls/{poll}\">{title}</a></p>\n"));
            }
            (Some(poll), None) => content.push_str(&format!("<p>Poll: {}</p>\n", escape(poll))),
            (None, _) => {}
        }
        if self.poll.is_some() {
            content.push_str(
                "<p class=\"soft\">A receipt shows neither what was chosen nor who chose it. Keep its address to look \
                 again later.</p>\n",
            );
        }
        let mut head = String::from("<meta name=\"robots\" content=\"noindex\">\n");
        if self.state == "waiting" {
            head.push_str(&format!("<meta http-equiv=\"refresh\" content=\"{REFRESH}\">\n"));
        }
        page("Your receipt", &head, &content)
    }
}
