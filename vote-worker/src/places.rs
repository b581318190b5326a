//! Places: where each queue is now, as far as a lane has seen. What is asked of it costs nothing for queues that have not
//! changed.

use std::{collections::HashMap, sync::Arc};

use vote_core::{Partition, Queue, QueueId};

use crate::{
    monitor::{Monitored, QueueView, ReplacedView},
    owned::Held,
    source::Queues,
};

/// A place with a queue, and perhaps with replaced ones.
#[derive(Debug)]
pub(crate) struct Place {
    key: String,
    monitored: Monitored,
    view: QueueView,
}

/// All places, and which queue is at which.
#[derive(Debug, Default)]
pub(crate) struct Places {
    known: Option<Arc<Queues>>,
    places: Vec<Place>,
    by_id: HashMap<QueueId, (usize, bool)>,
}

impl Places {
    /// Takes over what has changed, and returns the numbers of the places that did, each with what was there before.
    pub(crate) fn update(&mut self, queues: &Arc<Queues>) -> Vec<(usize, QueueView)> {
        if self.known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, queues)) {
            self.known = Some(Arc::clone(queues));
            let place = |(key, monitored): (&String, &Monitored)| Place {
                key: key.clone(),
                monitored: monitored.unseen(),
                view: QueueView::Unreadable,
            };
            self.places = queues.iter().map(place).collect();
        }
        let (mut changed, mut moved) = (Vec::new(), false);
        for (number, place) in self.places.iter_mut().enumerate() {
            let Some(view) = place.monitored.changed_view() else { continue };
            let before = std::mem::replace(&mut place.view, view);
            moved |= !has_same_ids(&before, &place.view);
            changed.push((number, before));
        }
        if moved {
            self.by_id.clear();
            for (number, place) in self.places.iter().enumerate() {
                let QueueView::Open { id, replaced, .. } = &place.view else { continue };
                self.by_id.extend(replaced.iter().map(|replaced| (replaced.id, (number, true))));
                self.by_id.insert(*id, (number, false));
            }
        }
        changed
    }

    /// Returns the number of places.
    pub(crate) fn count(&self) -> usize {
        self.places.len()
    }

    /// Returns what is at each place.
    pub(crate) fn views(&self) -> impl Iterator<Item = &QueueView> {
        self.places.iter().map(|place| &place.view)
    }

    /// Returns what is at a place.
    pub(crate) fn view(&self, number: usize) -> &QueueView {
        self.places.get(number).map_or(&QueueView::Unreadable, |place| &place.view)
    }

    /// Returns the key of the place at which a queue is now, and the place, whether the queue is a current or a replaced
    /// one.
    pub(crate) fn find(&self, id: QueueId) -> Option<(&str, &Arc<dyn Queue>)> {
        let place = self.places.get(self.by_id.get(&id)?.0)?;
        Some((&place.key, &place.monitored.queue))
    }

    /// Returns the server from which a queue may be read.
    pub(crate) fn server(&self, id: QueueId) -> Option<Arc<str>> {
        match &self.places.get(self.by_id.get(&id)?.0)?.view {
            QueueView::Open { server, .. } => Some(Arc::clone(server)),
            QueueView::Unreadable => None,
        }
    }

    /// Returns whether a queue is a replaced one.
    pub(crate) fn is_replaced(&self, id: QueueId) -> bool {
        self.by_id.get(&id).is_some_and(|(_, is_replaced)| *is_replaced)
    }
}

fn has_same_ids(a: &QueueView, b: &QueueView) -> bool {
    match (a, b) {
        (QueueView::Open { id: a, replaced: x, .. }, QueueView::Open { id: b, replaced: y, .. }) => {
            a == b && x.iter().map(|replaced| replaced.id).eq(y.iter().map(|replaced| replaced.id))
        }
        _ => false,
    }
}

/// Returns what a partition of the queues at a place is known to hold.
pub(crate) fn held(view: &QueueView, partition: Partition) -> impl Iterator<Item = (QueueId, Held)> {
    let (current, replaced) = match view {
        QueueView::Open { id, replaced, .. } => {
            (Some((*id, Held::Votes(accepted(view, partition)))), &replaced[..])
        }
        QueueView::Unreadable => (None, &[][..]),
    };
    let end = move |replaced: &ReplacedView| {
        let end = replaced.ends.get(usize::from(partition.0)).copied().unwrap_or_default();
        (replaced.id, Held::UpTo(end))
    };
    current.into_iter().chain(replaced.iter().map(end))
}

/// Returns the number of votes that the queue at a place accepted in a partition.
fn accepted(view: &QueueView, partition: Partition) -> u64 {
    match view {
        QueueView::Open { accepted, .. } => accepted.get(&partition).copied().unwrap_or_default(),
        QueueView::Unreadable => 0,
    }
}

/// Returns whether a partition of the queues at a place is known to hold what it held before.
pub(crate) fn is_unchanged(before: &QueueView, now: &QueueView, partition: Partition) -> bool {
    has_same_ids(before, now) && accepted(before, partition) == accepted(now, partition)
}
