//! Replaced queues, and copied files.

use super::*;

#[tokio::test]
async fn a_replaced_queue_survives_a_restart_beside_the_new_one() {
    let files = Files::new();
    let (queue, first) = open_queue(&files).await;
    let flush = frames(&[vote(1, 0, 1)]);
    let partition = flush[0].partition;
    let stored = queue.append(first, &flush).await.unwrap();
    let second = queue.create(layout(), Some(first)).await.unwrap();
    activate(&queue, second, &[poll()]).await.unwrap();
    queue.append(second, &flush).await.unwrap();
    drop(queue);
    let queue = SqliteQueue::open(&files.last_path()).await.unwrap();
    assert_eq!(consistent_entries(&queue, second).await.len(), 1, "the new queue counts its own votes only");
    let status = queue.status().await.unwrap().unwrap();
    let [replaced] = &status.replaced[..] else { panic!("{:?}", status.replaced) };
    assert_eq!((status.id, replaced.of), (second, first));
    let Appended::Stored(end) = stored[0] else { panic!("not sealed") };
    let start = vec![Position::START; usize::from(layout().partitions.count())];
    let backlog = queue.backlog(replaced.id, &start, 1).await.unwrap();
    assert_eq!(backlog[usize::from(partition.0)].end, end);
    let read = queue.read(replaced.id, partition, Position::START, 10).await.unwrap();
    assert_eq!((read.entries.len(), read.at_end, read.accepted), (1, true, None));
    queue.trim(replaced.id, partition, end).await.unwrap();
    let status = queue.status().await.unwrap().unwrap();
    assert_eq!((status.replaced, status.entries.iter().sum::<u64>()), (Vec::new(), 1));
    assert_eq!(queue.read(replaced.id, partition, end, 1).await, Err(QueueError::Replaced));
}

#[tokio::test]
async fn each_replacement_leaves_a_replaced_queue_of_its_own() {
    let files = Files::new();
    let (queue, mut id) = open_queue(&files).await;
    let mut originals = Vec::new();
    for round in 0..3 {
        queue.append(id, &frames(&[vote(round, 0, 1), vote(round + 100, 0, 1)])).await.unwrap();
        originals.push(id);
        id = queue.create(layout(), Some(id)).await.unwrap();
        activate(&queue, id, &[poll()]).await.unwrap();
    }
    let replaced = queue.status().await.unwrap().unwrap().replaced;
    assert_eq!(replaced.iter().map(|replaced| replaced.of).collect::<Vec<_>>(), originals);
    for replaced in replaced {
        let start = vec![Position::START; usize::from(layout().partitions.count())];
        let backlog = queue.backlog(replaced.id, &start, 10).await.unwrap();
        assert_eq!(backlog.iter().flat_map(|backlog| backlog.votes.values()).sum::<u64>(), 2);
    }
}

#[tokio::test]
async fn a_backlog_tells_whether_its_count_is_complete() {
    let files = Files::new();
    let (queue, id) = open_queue(&files).await;
    let flush = frames(&[vote(1, 0, 1)]);
    let place = usize::from(flush[0].partition.0);
    let mut positions = vec![Position::START];
    for _ in 0..3 {
        let appended = queue.append(id, &flush).await.unwrap();
        let Appended::Stored(position) = appended[0] else { panic!("not sealed") };
        positions.push(position);
    }
    queue.trim(id, flush[0].partition, positions[3]).await.unwrap();
    queue.append(id, &flush).await.unwrap();
    let mut after = vec![Position::START; usize::from(layout().partitions.count())];
    // Behind the start, a trimmed entry, and the last entry but one there are 2, 2 and 1 entries.
    for (from, limit, votes, complete) in
        [(0, 9, 2, true), (1, 2, 2, true), (1, 1, 1, false), (1, 0, 0, false), (3, 1, 1, true)]
    {
        after[place] = positions[from];
        let backlog = queue.backlog(id, &after, limit).await.unwrap();
        assert_eq!(backlog.len(), after.len());
        let counted = &backlog[place];
        assert_eq!(
            (counted.votes.values().sum::<u64>(), counted.complete),
            (votes, complete),
            "{from} {limit}"
        );
        assert!(counted.end > positions[3], "the end is known however small the limit");
    }
    after[place] = Position::from_bytes(&i64::MAX.to_be_bytes()).unwrap();
    let backlog = queue.backlog(id, &after, 9).await.unwrap();
    assert_eq!((backlog[place].end, backlog[place].complete), (after[place], true), "no entry is behind it");
}

#[tokio::test]
async fn a_file_has_the_same_server_for_all_who_open_it_and_a_copy_another() {
    let files = Files::new();
    let (queue, id) = open_queue(&files).await;
    let path = files.last_path();
    let server = async |path: &Path| {
        let status = SqliteQueue::open(path).await.unwrap().status().await.unwrap().unwrap();
        assert_eq!(status.id, id);
        status.server
    };
    let original = queue.status().await.unwrap().unwrap().server;
    assert_eq!(server(&path).await, original);
    #[cfg(unix)]
    {
        let link = path.with_extension("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(server(&link).await, original);
    }
    let copy = path.with_extension("copy");
    let mut beside = raw(&path).await;
    sqlx::query("VACUUM INTO ?1").bind(copy.to_str().unwrap()).execute(&mut beside).await.unwrap();
    assert_ne!(server(&copy).await, original);
}

#[tokio::test]
async fn an_order_number_reused_after_a_rollback_is_no_anchor() {
    let files = Files::new();
    let (queue, id) = open_queue(&files).await;
    let partition = frames(&[vote(1, 0, 1)])[0].partition;
    drop(queue);
    let (path, backup) = (files.last_path(), files.new_path());
    let copy = |from: &Path, to: &Path| {
        for ending in ["", "-wal", "-shm"] {
            let name = |path: &Path| PathBuf::from(format!("{}{ending}", path.display()));
            drop(std::fs::remove_file(name(to)));
            if name(from).exists() {
                std::fs::copy(name(from), name(to)).unwrap();
            }
        }
    };
    copy(&path, &backup);
    let queue = SqliteQueue::open(&path).await.unwrap();
    let lost = queue.append(id, &frames(&[vote(1, 0, 1)])).await.unwrap();
    let Appended::Stored(committed) = lost[0] else { panic!("{lost:?}") };
    queue.read(id, partition, committed, 9).await.unwrap();
    drop(queue);
    copy(&backup, &path);
    let queue = SqliteQueue::open(&path).await.unwrap();
    let again = queue.append(id, &frames(&[vote(1, 1, 2)])).await.unwrap();
    let Appended::Stored(other) = again[0] else { panic!("{again:?}") };
    assert_eq!(other.as_bytes()[..8], committed.as_bytes()[..8], "the order number is reused");
    assert_eq!(queue.read(id, partition, committed, 9).await, Err(QueueError::Diverged(committed)));
}
