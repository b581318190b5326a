//! Known names of environment variables, and the nearest one to a mistyped name.

use super::ALL;

/// Returns all known names, including those of variables that name files.
pub(super) fn known_names() -> impl Iterator<Item = String> {
    ALL.iter().flat_map(|setting| [Some(setting.name.to_owned()), setting.file_name()]).flatten()
}

/// True if any service has a setting of this name.
pub(super) fn is_known(name: &str) -> bool {
    known_names().any(|known| known == name)
}

/// Returns the known name with the smallest edit distance from `name`.
pub(super) fn nearest(name: &str) -> String {
    known_names().min_by_key(|known| changes(name, known)).unwrap_or_default()
}

/// Returns the Levenshtein distance: how many characters must be added, removed or replaced to turn `a` into `b`.
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
    fn each_character_added_removed_or_replaced_is_one_change() {
        assert_eq!(
            ["kitten", "sitten", "sittin", "sitting", ""].map(|b| changes("kitten", b)),
            [0, 1, 2, 3, 6]
        );
    }
}
