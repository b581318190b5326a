//! Boxes that were replaced, and files that were copied.

use super::*;

#[tokio::test]
async fn what_is_left_of_a_replaced_box_survives_a_restart_beside_the_new_one() {
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
    assert_eq!(consistent_entries(&queue, second).await.len(), 1, "the new box counts its own votes only");
    let status = queue.status().await.unwrap().unwrap();
    let [remains] = &status.remains[..] else { panic!("{:?}", status.remains) };
    assert_eq!((status.id, remains.of), (second, first));
    let Appended::Stored(end) = stored[0] else { panic!("not sealed") };
    let start = vec![Position::START; usize::from(layout().partitions.count())];
    let unread = queue.unread(remains.id, &start, 1).await.unwrap();
    assert_eq!(unread[usize::from(partition.0)].end, end);
    let read = queue.read(remains.id, partition, Position::START, 10).await.unwrap();
    assert_eq!((read.entries.len(), read.at_end, read.accepted), (1, true, None));
    queue.trim(remains.id, partition, end).await.unwrap();
    let status = queue.status().await.unwrap().unwrap();
    assert_eq!((status.remains, status.entries.iter().sum::<u64>()), (Vec::new(), 1));
    assert_eq!(queue.read(remains.id, partition, end, 1).await, Err(QueueError::AnotherBox));
}

#[tokio::test]
async fn boxes_replaced_again_and_again_each_leave_their_own_remains() {
    let files = Files::new();
    let (queue, mut id) = open_queue(&files).await;
    let mut replaced = Vec::new();
    for round in 0..3 {
        queue.append(id, &frames(&[vote(round, 0, 1), vote(round + 100, 0, 1)])).await.unwrap();
        replaced.push(id);
        id = queue.create(layout(), Some(id)).await.unwrap();
        activate(&queue, id, &[poll()]).await.unwrap();
    }
    let remains = queue.status().await.unwrap().unwrap().remains;
    assert_eq!(remains.iter().map(|remains| remains.of).collect::<Vec<_>>(), replaced);
    for remains in remains {
        let start = vec![Position::START; usize::from(layout().partitions.count())];
        let unread = queue.unread(remains.id, &start, 10).await.unwrap();
        assert_eq!(unread.iter().flat_map(|unread| unread.votes.values()).sum::<u64>(), 2);
    }
}

#[tokio::test]
async fn the_count_of_what_is_unread_says_whether_it_reaches_the_end() {
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
    // From the start, from an entry that is trimmed, and from the last but one: 2, 2 and 1 are there.
    for (from, limit, votes, complete) in
        [(0, 9, 2, true), (1, 2, 2, true), (1, 1, 1, false), (1, 0, 0, false), (3, 1, 1, true)]
    {
        after[place] = positions[from];
        let unread = queue.unread(id, &after, limit).await.unwrap();
        assert_eq!(unread.len(), after.len());
        let there = &unread[place];
        assert_eq!((there.votes.values().sum::<u64>(), there.complete), (votes, complete), "{from} {limit}");
        assert!(there.end > positions[3], "the end is known, however little is counted");
    }
    after[place] = Position::from_bytes(&i64::MAX.to_be_bytes()).unwrap();
    let unread = queue.unread(id, &after, 9).await.unwrap();
    assert_eq!((unread[place].end, unread[place].complete), (after[place], true), "nothing is behind it");
}

#[tokio::test]
async fn all_who_open_a_file_find_the_same_server_and_in_a_copy_another() {
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
async fn a_number_that_is_used_again_after_a_rollback_is_no_anchor() {
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
    assert_eq!(other.as_bytes()[..8], committed.as_bytes()[..8], "the number is used again");
    assert_eq!(queue.read(id, partition, committed, 9).await, Err(QueueError::Cut(committed)));
}
