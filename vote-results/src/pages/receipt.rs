//! The page of a receipt, and JSON with the same content.

use serde::Serialize;
use vote_service::respond::escape_html as escape;

use super::{REFRESH, page};
use crate::receipts::ReceiptStatus;

/// The response to a receipt. Serializes as the JSON response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// State for programs: the [name](ReceiptStatus::name) of the status, or `unknown`.
    pub state: &'static str,
    /// Slug of the poll; none if the token is not a valid receipt.
    pub poll: Option<String>,
    /// Message for people.
    pub message: String,
}

impl Answer {
    /// Returns the response for a vote in this poll with this status.
    #[must_use]
    pub fn of(status: &ReceiptStatus, poll: impl Into<String>) -> Self {
        Self { state: status.name(), poll: Some(poll.into()), message: status.message() }
    }

    /// Returns the response for a token that is not a valid receipt.
    #[must_use]
    pub fn unknown() -> Self {
        let message = "This is not a valid receipt. Check that the address is complete: receipts are long, and a part \
                       may have been lost when it was copied.";
        Self { state: "unknown", poll: None, message: message.to_owned() }
    }

    /// Renders the response as a page. `title` is the title of the poll, if its results are shown on this site.
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
                "<p class=\"soft\">A receipt shows neither what was chosen nor who chose it. Keep the address of this \
                 page to check again later.</p>\n",
            );
        }
        let mut head = String::from("<meta name=\"robots\" content=\"noindex\">\n");
        if self.state == "waiting" {
            head.push_str(&format!("<meta http-equiv=\"refresh\" content=\"{REFRESH}\">\n"));
        }
        page("Your receipt", &head, &content)
    }
}
