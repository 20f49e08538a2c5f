//! Fills and their readers, without a store or a network.

use std::pin::pin;
use std::task::{Context, Waker};

use http::{HeaderMap, StatusCode};
use shoal_policy::cache::selecting::Selecting;
use shoal_policy::cache::storage::Terms;

use super::*;

fn begun() -> (Arc<Fill>, FillReader) {
    begun_within(&Arc::new(FillBudget::new(u64::MAX)))
}

fn begun_within(budget: &Arc<FillBudget>) -> (Arc<Fill>, FillReader) {
    let fill = Arc::new(Fill::new(ObjectKey(1), "http://a.org/", 0, false, budget));
    let reader = fill.reader().unwrap();
    (fill, reader)
}

const PIECE_BYTES: u64 = WINDOW_BYTES / 2;

/// `None` = it waits.
fn push(fill: &Fill) -> Option<bool> {
    let piece = Bytes::from(vec![0; PIECE_BYTES as usize]);
    match pin!(fill.push(piece)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(goes_on) => Some(goes_on),
        Poll::Pending => None,
    }
}

fn read(reader: &FillReader, pieces: usize) {
    for _ in 0..pieces {
        assert!(reader.poll_chunk(&Context::from_waker(Waker::noop())).is_ready());
    }
}

fn head() -> FillHead {
    FillHead {
        status: StatusCode::OK,
        fields: HeaderMap::new(),
        own_fields: None,
        orphan_of: None,
        terms: Terms::default(),
        selecting: Selecting::of(&[], &HeaderMap::new()),
        tags: Box::default(),
        fill_seq: 0,
        checked_seq: 0,
        length: None,
        part: None,
        home: None,
        answered: StatusCode::OK,
        is_shareable: true,
        is_stored: false,
        source: FillSource::Origin,
        chunked: None,
    }
}

#[tokio::test]
async fn what_is_not_stored_is_held_for_readers_that_lag() {
    let (fill, fast) = begun();
    let slow = fill.reader().unwrap();
    fill.begin(head(), WINDOW_BYTES, 4 * WINDOW_BYTES);
    for _ in 0..8 {
        assert_eq!(push(&fill), Some(true));
        read(&fast, 1);
    }
    assert!(fill.is_joinable(), "nobody has to hurry yet");
    assert_eq!(push(&fill), None, "that is too far");
    read(&slow, 1);
    assert_eq!(push(&fill), None);
    read(&slow, 1);
    assert_eq!(push(&fill), None);
    read(&slow, 9);
    drop(fast);
    assert_eq!(
        [push(&fill), push(&fill), push(&fill)],
        [Some(true), Some(true), None],
        "one reader, one window"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stands_still_is_left_behind_and_the_others_go_on() {
    let (fill, stuck) = begun();
    let fast = fill.reader().unwrap();
    let (pushed, began) = (10, Instant::now());
    let pushing = async {
        for _ in 0..pushed {
            assert!(fill.push(Bytes::from(vec![0; PIECE_BYTES as usize])).await);
        }
        fill.complete();
    };
    let reading = async {
        let mut pieces = 0;
        while let Some(piece) = std::future::poll_fn(|context| fast.poll_chunk(context)).await {
            pieces += piece.map(|_| 1).unwrap();
        }
        pieces
    };
    let ((), read) = tokio::join!(pushing, reading);
    assert_eq!((read, began.elapsed()), (pushed, LAGGARD_PATIENCE));
    let context = Context::from_waker(Waker::noop());
    let Poll::Ready(Some(Err(failure))) = stuck.poll_chunk(&context) else { panic!("it is not told") };
    assert_eq!(failure, Failure::DownstreamTimeout);
}

#[tokio::test(start_paused = true)]
async fn readers_that_are_all_slow_are_waited_for() {
    let (fill, slow) = begun();
    let _slow_too = fill.reader().unwrap();
    assert_eq!([push(&fill), push(&fill)], [Some(true), Some(true)]);
    let waiting = timeout(LAGGARD_PATIENCE * 10, fill.push(Bytes::from(vec![0; PIECE_BYTES as usize])));
    assert!(waiting.await.is_err());
    read(&slow, 3);
}

#[tokio::test]
async fn a_pipe_waits_for_its_slowest_reader_and_ends_without_readers() {
    let (fill, slow) = begun();
    let fast = fill.reader().unwrap();
    assert_eq!([push(&fill), push(&fill)], [Some(true), Some(true)]);
    assert!(fill.pieces().is_some() && fill.is_joinable());
    assert_eq!(push(&fill), None, "the window is full");
    assert!(fill.pieces().is_none() && !fill.is_joinable(), "it will not be stored");
    read(&fast, 3);
    assert_eq!(push(&fill), None, "the slow one has read nothing");
    read(&fast, 1);
    drop(slow);
    assert_eq!(push(&fill), Some(true));
    drop(fast);
    assert_eq!(push(&fill), Some(false));
}

#[tokio::test]
async fn fills_share_a_budget() {
    let budget = Arc::new(FillBudget::new(WINDOW_BYTES));
    let (first, _waits) = begun_within(&budget);
    let (second, reader) = begun_within(&budget);
    assert_eq!([push(&first), push(&second)], [Some(true), Some(true)]);
    assert!(!second.is_crowded() && second.is_joinable());
    assert_eq!(push(&second), Some(true));
    assert!(second.is_crowded() && !second.is_joinable(), "the first one holds so much");
    assert_eq!(push(&second), None, "it goes on at the pace of its reader");
    drop((second, reader));
    assert_eq!(push(&first), Some(true));
    assert!(!first.is_crowded(), "what is gone holds nothing");
}

#[test]
fn a_fill_that_nobody_works_on_ends_in_an_error() {
    let (fill, reader) = begun();
    let context = Context::from_waker(Waker::noop());
    assert!(reader.poll_chunk(&context).is_pending());
    fill.abandon();
    let Poll::Ready(Some(Err(failure))) = reader.poll_chunk(&context) else {
        panic!("it hangs, or ends well")
    };
    assert_eq!(failure, Failure::Internal);
}
