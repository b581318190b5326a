//! The names that a variable of the environment may have.

use super::ALL;

/// All of them.
pub(super) fn known_names() -> impl Iterator<Item = String> {
    ALL.iter().flat_map(|setting| [Some(setting.name.to_owned()), setting.file_name()]).flatten()
}

/// Whether some service has a setting of that name.
pub(super) fn is_known(name: &str) -> bool {
    known_names().any(|known| known == name)
}

/// The known name that needs the fewest changes.
pub(super) fn nearest(name: &str) -> String {
    known_names().min_by_key(|known| changes(name, known)).unwrap_or_default()
}

/// How many characters must be added, removed or replaced to make `b` of `a` (Levenshtein's distance).
fn changes(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_character_added_removed_or_replaced() {
        assert_eq!(
            ["kitten", "sitten", "sittin", "sitting", ""].map(|b| changes("kitten", b)),
            [0, 1, 2, 3, 6]
        );
    }
}
