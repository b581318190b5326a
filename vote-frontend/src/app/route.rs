//! Routes of the frontend.

/// Resource that a path names.
pub(super) enum Route<'a> {
    Home,
    Poll(&'a str),
    Votes(&'a str),
    Receipt(&'a str),
}

impl Route<'_> {
    /// Returns the name of the route for traces, which must contain neither polls nor receipts.
    pub(super) const fn pattern(&self) -> &'static str {
        match self {
            Self::Home => "/",
            Self::Poll(_) => "/polls/{poll}",
            Self::Votes(_) => "/polls/{poll}/votes",
            Self::Receipt(_) => "/receipts/{receipt}",
        }
    }
}

pub(super) fn route(path: &str) -> Option<Route<'_>> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let route = match (parts.next()?, parts.next(), parts.next()) {
        ("", None, None) => Route::Home,
        ("polls", Some(poll), None) => Route::Poll(poll),
        ("polls", Some(poll), Some("votes")) => Route::Votes(poll),
        ("receipts", Some(receipt), None) => Route::Receipt(receipt),
        _ => return None,
    };
    parts.next().is_none().then_some(route)
}
