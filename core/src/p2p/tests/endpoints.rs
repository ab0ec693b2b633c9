use bytes::Bytes;

use super::*;

/// One message and its answer.
async fn exchange(ours: &Connection, theirs: &Connection) {
    let ask = async {
        let Stream { sender, mut receiver } = ours.open_stream().await.expect("opens");
        sender.finish_with("ping").await.expect("sends");
        receiver.message::<String>().await.expect("receives")
    };
    let answer = async {
        let Stream { sender, mut receiver } = theirs.accept_stream().await.expect("accepts");
        let asked = receiver.message::<String>().await.expect("receives");
        sender.finish_with("pong").await.expect("sends");
        asked
    };
    let (answer, asked) = soon(async { tokio::join!(ask, answer) }).await;
    assert_eq!((asked.as_deref(), answer.as_deref()), (Some("ping"), Some("pong")));
}

#[tokio::test]
async fn a_message_and_its_answer_cross_loopback() {
    let two = Two::quic().await;
    let (ours, theirs) = two.connected().await;
    assert_eq!((ours.peer(), theirs.peer()), (two.server.id52(), two.caller.id52()));
    exchange(&ours, &theirs).await;
    drop((ours, theirs));
    two.end().await;
}

#[tokio::test]
async fn a_message_and_its_answer_cross_memory() {
    let (two, _network) = Two::memory().await;
    let (ours, theirs) = two.connected().await;
    exchange(&ours, &theirs).await;
    drop((ours, theirs));
    two.end().await;
}

#[tokio::test]
async fn bulk_arrives_as_it_was_sent() {
    let two = Two::quic().await;
    let (ours, theirs) = two.connected().await;
    let total: usize = 64 << 20;
    let block: Bytes =
        (0..1_048_573_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<u8>>().into();
    let send = async {
        let Stream { sender, receiver: _receiver } = ours.open_stream().await.expect("opens");
        let mut left = total;
        while left > 0 {
            let piece = block.slice(..left.min(block.len()));
            left -= piece.len();
            sender.send(Channel::Main, piece).await.expect("sends");
        }
        sender.finish().await.expect("finishes");
    };
    let receive = async {
        let Stream { sender: _sender, mut receiver } = theirs.accept_stream().await.expect("accepts");
        let mut offset = 0;
        while let Some(bytes) = receiver.data(Channel::Main).await.expect("receives") {
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                let at = offset % block.len();
                let length = bytes.len().min(block.len() - at);
                assert!(bytes[..length] == block[at..at + length], "differs near {offset}");
                bytes = &bytes[length..];
                offset += length;
            }
        }
        offset
    };
    let ((), received) = soon(async { tokio::join!(send, receive) }).await;
    assert_eq!(received, total);
    drop((ours, theirs));
    two.end().await;
}
