"""What is said between a guest and the relay; how to read it stands in tcp_talk."""

from __future__ import annotations

import pytest
from tcp_talk import Talk

OPENING = {
    "three-way handshake": """
        >> S 0 mss 1000 win 65535
        << SA 0 ack 1 mss 1360
        >> A 1 ack 1
        << nothing
        state ESTABLISHED
    """,
    "options are offered only to who offered them": """
        >> S 0 mss 1000
        << SA 0 ack 1 ws none sackok no
    """,
    "window scaling and SACK are agreed": """
        >> S 0 mss 1000 ws 7 sackok
        << SA 0 ack 1 ws 3 sackok yes win 65535
    """,
    "a repeated SYN is answered again": """
        >> S 0
        << SA 0 ack 1
        >> S 0
        << SA 0 ack 1
        >> A 1 ack 1
        state ESTABLISHED
    """,
    "an unanswered SYN-ACK is repeated, ever slower, and given up": """
        >> S 0
        << SA 0 ack 1
        wait 0.9
        << nothing
        wait 0.2
        << SA 0 ack 1
        wait 1.8
        << nothing
        wait 0.2
        << SA 0 ack 1
        wait 60
        << SA 0
        << SA 0
        << SA 0
        << nothing
        wait 60
        ended TIMED_OUT
    """,
    "RST ends the opening": """
        >> S 0
        << SA 0 ack 1
        >> R 1
        ended RESET
        << nothing
    """,
    "RST that is not exact does not end the opening": """
        >> S 0
        << SA 0 ack 1
        >> R 2
        state SYN_RECEIVED
    """,
    "an ACK of what was never sent is reset": """
        >> S 0
        << SA 0 ack 1
        >> A 1 ack 77
        << R 77
        state SYN_RECEIVED
    """,
    "data come with the handshake's ACK": """
        >> S 0
        << SA 0 ack 1
        >> A 1:500 ack 1
        << A 1 ack 501
        host got 500
        state ESTABLISHED
    """,
    "the ACK is lost, data come first": """
        >> S 0
        << SA 0 ack 1
        >> PA 1:10 ack 1
        state ESTABLISHED
        << A 1 ack 11
    """,
    "a new SYN in the middle of the handshake is challenged": """
        >> S 0
        << SA 0 ack 1
        >> S 5000
        state SYN_RECEIVED
    """,
    "FIN right after the handshake": """
        >> S 0
        << SA 0 ack 1
        >> A 1 ack 1 | FA 1 ack 1
        << A 1 ack 2
        state CLOSE_WAIT
    """,
    "the relay opens": """
        connect
        << S 0 mss 1360 ws 3 sackok yes
        >> SA 0 ack 1 mss 1000 ws 2 sackok
        << A 1 ack 1
        state ESTABLISHED
        host writes 10
        << PA 1:10 ack 1
    """,
    "the relay opens and is refused": """
        connect
        << S 0
        >> RA 0 ack 1
        ended RESET
        << nothing
    """,
    "a RST without our number refuses nothing": """
        connect
        << S 0
        >> RA 0 ack 9
        state SYN_SENT
        >> R 0
        state SYN_SENT
    """,
    "a SYN-ACK of something else is reset": """
        connect
        << S 0
        >> SA 0 ack 5
        << R 5
        state SYN_SENT
    """,
    "the relay's SYN is repeated and given up": """
        connect
        << S 0
        wait 1.1
        << S 0
        wait 100
        << S 0
        << S 0
        << S 0
        << S 0
        << nothing
        ended TIMED_OUT
    """,
    "both open at once": """
        connect
        << S 0
        >> S 0 mss 1000
        << SA 0 ack 1
        state SYN_RECEIVED
        >> SA 0 ack 1 mss 1000
        << A 1 ack 1
        state ESTABLISHED
    """,
    "both open at once, and the guest's ACK is bare": """
        connect
        << S 0
        >> S 0
        << SA 0 ack 1
        >> A 1 ack 1
        state ESTABLISHED
    """,
}

DATA = {
    "segments follow the guest's MSS": """
        open mss 1000
        host writes 2500
        << A 1:1000
        << A 1001:1000
        << PA 2001:500
        >> A 1 ack 2501
        << nothing
    """,
    "segments follow the link where it is narrower": """
        open mss 1460
        host writes 2000
        << A 1:1360
        << PA 1361:640
    """,
    "the initial window is ten segments": """
        >> S 0 mss 1000
        << SA 0 ack 1
        wait 0.04
        >> A 1 ack 1
        host writes 12000
        << A 1:1000
        << A 1001:1000
        << A 2001:1000
        << A 3001:1000
        << A 4001:1000
        << A 5001:1000
        << A 6001:1000
        << A 7001:1000
        << nothing                    # eight at once, paced from here
        wait 0.01
        << A 8001:1000
        << A 9001:1000
        << nothing                    # ten in flight
        >> A 1 ack 2001
        wait 0.01
        << A 10001:1000
        << PA 11001:1000
    """,
    "a guest's small window is kept": """
        open mss 1000
        >> A 1 ack 1 win 1500
        host writes 4000
        << A 1:1000
        << nothing
        >> A 1 ack 1001 win 1500
        << A 1001:1000
    """,
    "a window smaller than a segment is used when nothing is on its way": """
        open mss 1000
        >> A 1 ack 1 win 300
        host writes 1000
        << A 1:300
        << nothing
        >> A 1 ack 301 win 300
        << A 301:300
    """,
    "a closed window is probed, and data go on when it opens": """
        open mss 1000
        >> A 1 ack 1 win 0
        host writes 500
        << nothing
        wait 0.35
        << A 0
        >> A 1 ack 1 win 0
        wait 0.6
        << A 0
        >> A 1 ack 1 win 1000
        << PA 1:500
    """,
    "a closed window is probed for ever": """
        open mss 1000
        >> A 1 ack 1 win 0
        host writes 500
        wait 100
        << A 0
        state ESTABLISHED
    """,
    "scaled windows": """
        open mss 1000 ws 2
        >> A 1 ack 1 win 250
        host writes 3000
        << A 1:1000
        << nothing
        >> A 1 ack 1001 win 500
        << A 1001:1000
        << PA 2001:1000
    """,
    "two segments are acknowledged at once, together": """
        open mss 1000
        >> A 1:1000 ack 1 | A 1001:1000 ack 1
        << A 1 ack 2001
        << nothing
        host got 2000
    """,
    "a lone segment's ACK waits once the connection has settled": """
        open mss 1000
        >> A 1:100 ack 1 | A 101:100 ack 1 | A 201:100 ack 1 | A 301:100 ack 1
        << A 1 ack 401
        >> A 401:100 ack 1 | A 501:100 ack 1 | A 601:100 ack 1 | A 701:100 ack 1
        << A 1 ack 801
        >> A 801:100 ack 1 | A 901:100 ack 1 | A 1001:100 ack 1 | A 1101:100 ack 1
        << A 1 ack 1201
        >> A 1201:100 ack 1 | A 1301:100 ack 1 | A 1401:100 ack 1 | A 1501:100 ack 1
        << A 1 ack 1601
        >> A 1601:100 ack 1
        << nothing
        wait 0.03
        << A 1 ack 1701
    """,
    "an ACK rides on data": """
        open mss 1000
        >> A 1:100 ack 1
        << A 1 ack 101
        host writes 50
        << PA 1:50 ack 101
    """,
    "urgent data are data": """
        open mss 1000
        >> UPA 1:100 ack 1
        << A 1 ack 101
        host got 100
    """,
    "out of order": """
        open mss 1000 sackok
        >> A 1001:1000 ack 1
        << A 1 ack 1 sack 1001-2001
        host got 0
        >> A 1:1000 ack 1
        << A 1 ack 2001 sack none
        host got 2000
    """,
    "the latest block comes first": """
        open mss 1000 sackok
        >> A 1001:100 ack 1
        << A 1 ack 1 sack 1001-1101
        >> A 3001:100 ack 1
        << A 1 ack 1 sack 3001-3101,1001-1101
        >> A 5001:100 ack 1
        << A 1 ack 1 sack 5001-5101,1001-1101,3001-3101
        >> A 1101:100 ack 1
        << A 1 ack 1 sack 1001-1201,3001-3101,5001-5101
    """,
    "no SACK for who did not ask": """
        open mss 1000
        >> A 1001:1000 ack 1
        << A 1 ack 1 sack none
    """,
    "overlapping segments": """
        open mss 1000 sackok
        >> A 201:300 ack 1
        << A 1 ack 1 sack 201-501
        >> A 101:300 ack 1
        << A 1 ack 1 sack 101-501
        >> A 1:150 ack 1
        << A 1 ack 501
        host got 500
    """,
    "a repeated segment is acknowledged, not taken twice": """
        open mss 1000
        >> A 1:100 ack 1
        << A 1 ack 101
        >> A 1:100 ack 1
        << A 1 ack 101
        host got 100
    """,
    "a segment half old, half new": """
        open mss 1000
        >> A 1:100 ack 1
        << A 1 ack 101
        >> A 51:100 ack 1
        << A 1 ack 151
        host got 150
    """,
    "a keep-alive is answered": """
        open mss 1000
        >> A 0 ack 1
        << A 1 ack 1
        >> A 0:1 ack 1
        << A 1 ack 1
    """,
    "what lies beyond the window is not taken": """
        open mss 1000
        >> A 70001:100 ack 1
        << A 1 ack 1
        host got 0
    """,
    "an ACK of what was never sent is answered, not believed": """
        open mss 1000
        host writes 100
        << PA 1:100
        >> A 1 ack 5000
        << A 101 ack 1
        >> A 1 ack 101
        << nothing
    """,
    "an old ACK changes nothing": """
        open mss 1000
        host writes 100
        << PA 1:100
        >> A 1 ack 101
        >> A 1 ack 50
        << nothing
    """,
    "segments without ACK are ignored": """
        open mss 1000
        >> . 1:1 ack 1
        << A 1 ack 2
        >> P 2:10
        << nothing
        host got 1
    """,
}

HOST = {
    "what the host does not take is not acknowledged": """
        open mss 1000
        host is slow
        >> A 1:1000 ack 1
        << A 1 ack 1
        host takes 400
        << A 1 ack 401
        host takes 600
        << A 1 ack 1001
        host got 1000
    """,
    "a full host closes the window, and its room opens it again": """
        open mss 1000
        host is slow
        window 65535
        >> A 1:1000 ack 1 | A 1001:1000 ack 1 | A 2001:1000 ack 1
        << A 1 ack 1
        window 62535
        host has room 0
        host takes 3000
        << A 1 ack 3001 win 62535
        host has room 65535
        << A 1 ack 3001 win 65535
    """,
    "who sends again what is held is told that it came": """
        open mss 1000
        host is slow
        >> A 1:1000 ack 1
        << A 1 ack 1
        >> A 1:1000 ack 1
        << A 1 ack 1001
        host got 0
    """,
    "the FIN is acknowledged when the host took what was before it": """
        open mss 1000
        host is slow
        >> FA 1:100 ack 1
        << A 1 ack 1
        state CLOSE_WAIT
        host takes 100
        wait 1
        >> FA 1:100 ack 1
        << A 1 ack 102
    """,
    "a window update by small steps is not worth a segment": """
        open mss 1000
        >> A 1:100 ack 1
        << A 1 ack 101 win 65435
        host has room 65535
        << nothing
    """,
}

LOSS = {
    "the last segment is lost": """
        open mss 1000 sackok
        host writes 100
        << PA 1:100
        wait 0.15
        << nothing
        wait 0.15
        << PA 1:100
        >> A 1 ack 101
        wait 10
        << nothing
    """,
    "time-outs double, and the guest is given up": """
        open mss 1000
        host writes 100
        << PA 1:100
        wait 0.25
        << PA 1:100
        wait 0.3
        << nothing
        wait 0.2
        << PA 1:100
        wait 600
        ended TIMED_OUT
    """,
    "fast retransmit by SACK": """
        open mss 1000 sackok
        host writes 5000
        << A 1:1000
        << A 1001:1000
        << A 2001:1000
        << A 3001:1000
        << PA 4001:1000
        >> A 1 ack 1 sack 1001-2001
        >> A 1 ack 1 sack 1001-3001
        << nothing
        >> A 1 ack 1 sack 1001-4001
        << A 1:1000
        >> A 1 ack 5001
        << nothing
    """,
    "one ACK that covers three is enough": """
        open mss 1000 sackok
        host writes 4000
        << A 1:1000
        << A 1001:1000
        << A 2001:1000
        << PA 3001:1000
        >> A 1 ack 1 sack 1001-4001
        << A 1:1000
        << nothing
    """,
    "two holes": """
        open mss 1000 sackok
        host writes 8000
        << A 1:1000
        << A 1001:1000
        << A 2001:1000
        << A 3001:1000
        << A 4001:1000
        << A 5001:1000
        << A 6001:1000
        << PA 7001:1000
        >> A 1 ack 1 sack 1001-2001,3001-8001
        << A 1:1000
        wait 0.01                     # paced
        << A 2001:1000
        << nothing
        >> A 1 ack 2001 sack 3001-8001
        >> A 1 ack 8001
        << nothing
    """,
    "reordering is not loss": """
        open mss 1000 sackok
        host writes 3000
        << A 1:1000
        << A 1001:1000
        << PA 2001:1000
        >> A 1 ack 1 sack 2001-3001
        << nothing
        >> A 1 ack 3001
        wait 5
        << nothing
    """,
    "a hole that stays is filled soon": """
        open mss 1000 sackok
        wait 0.01
        host writes 1000
        << PA 1:1000
        wait 0.01
        host writes 1000
        << PA 1001:1000
        wait 0.01
        >> A 1 ack 1 sack 1001-2001
        wait 0.05
        << PA 1:1000
        << nothing
    """,
    "a lost retransmission is noticed": """
        open mss 1000 sackok
        host writes 5000
        << A 1:1000
        << A 1001:1000
        << A 2001:1000
        << A 3001:1000
        << PA 4001:1000
        wait 0.01
        >> A 1 ack 1 sack 1001-4001
        << A 1:1000
        wait 0.001
        host writes 1000
        << PA 5001:1000
        wait 0.02
        >> A 1 ack 1 sack 1001-6001
        wait 0.05
        << A 1:1000
    """,
    "NewReno for guests without SACK": """
        open mss 1000
        host writes 5000
        << A 1:1000
        << A 1001:1000
        << A 2001:1000
        << A 3001:1000
        << PA 4001:1000
        >> A 1 ack 1
        >> A 1 ack 1
        << nothing
        >> A 1 ack 1
        << A 1:1000
        << nothing
        >> A 1 ack 2001               # a partial acknowledgement: the next is missing too
        << A 2001:1000
        >> A 1 ack 5001
        << nothing
    """,
    "SACK blocks outside of what was sent are ignored": """
        open mss 1000 sackok
        host writes 1000
        << PA 1:1000
        >> A 1 ack 1 sack 5000-9000,60000-70000
        << nothing
        >> A 1 ack 1001
        << nothing
    """,
    "a guest that forgets what it had": """
        open mss 1000 sackok
        host writes 3000
        << A 1:1000
        << A 1001:1000
        << PA 2001:1000
        >> A 1 ack 1 sack 1001-3001
        >> A 1 ack 1001
        wait 0.3
        << A 1001:1000
        wait 1
        >> A 1 ack 3001
    """,
    "the window halves and grows from one segment after a time-out": """
        open mss 1000
        host writes 4000
        << A 1:1000
        << A 1001:1000
        << A 2001:1000
        << PA 3001:1000
        wait 0.25
        << A 1:1000
        << nothing
        >> A 1 ack 1001
        << A 1001:1000
        << A 2001:1000
        << nothing
        >> A 1 ack 4001
        << nothing
    """,
}

CLOSING = {
    "the guest ends first": """
        open
        >> FA 1 ack 1
        << A 1 ack 2
        state CLOSE_WAIT
        host ends
        << FA 1 ack 2
        state LAST_ACK
        >> A 2 ack 2
        ended FINISHED
        << nothing
    """,
    "the host ends first": """
        open
        host ends
        << FA 1 ack 1
        state FIN_WAIT_1
        >> A 1 ack 2
        state FIN_WAIT_2
        >> FA 1 ack 2
        << A 2 ack 2
        state TIME_WAIT
        wait 11
        ended FINISHED
    """,
    "the guest goes on after the host has ended": """
        open
        host ends
        << FA 1 ack 1
        >> A 1 ack 2
        >> A 1:1000 ack 2
        << A 2 ack 1001
        host got 1000
        >> FA 1001 ack 2
        << A 2 ack 1002
        state TIME_WAIT
    """,
    "the host goes on after the guest has ended": """
        open mss 1000
        >> FA 1 ack 1
        << A 1 ack 2
        host writes 1500
        << A 1:1000 ack 2
        << PA 1001:500 ack 2
        >> A 2 ack 1501
        host ends
        << FA 1501 ack 2
        >> A 2 ack 1502
        ended FINISHED
    """,
    "both end at once": """
        open
        host ends
        << FA 1 ack 1
        >> FA 1 ack 1
        << A 2 ack 2
        state CLOSING
        >> A 2 ack 2
        state TIME_WAIT
    """,
    "FIN and ACK in one": """
        open
        host ends
        << FA 1 ack 1
        >> FA 1 ack 2
        << A 2 ack 2
        state TIME_WAIT
    """,
    "FIN comes with the last data": """
        open mss 1000
        host writes 500
        << PA 1:500
        host ends
        << FA 501
        >> A 1 ack 502
        state FIN_WAIT_2
    """,
    "a lost FIN is sent again": """
        open
        host ends
        << FA 1 ack 1
        wait 0.3
        << FA 1 ack 1
        >> A 1 ack 2
        state FIN_WAIT_2
    """,
    "a repeated FIN is acknowledged again": """
        open
        host ends
        << FA 1 ack 1
        >> FA 1 ack 2
        << A 2 ack 2
        wait 9
        >> FA 1 ack 2
        << A 2 ack 2
        wait 9
        state TIME_WAIT               # it began anew
        wait 2
        ended FINISHED
    """,
    "a FIN out of order waits for what is missing": """
        open sackok
        >> FA 101:100 ack 1
        << A 1 ack 1 sack 101-201
        state ESTABLISHED
        >> A 1:100 ack 1
        << A 1 ack 202
        state CLOSE_WAIT
        host got 200
    """,
    "data after the FIN are not taken": """
        open
        >> FA 1:10 ack 1
        << A 1 ack 12
        >> A 12:10 ack 1
        host got 10
    """,
}

RESETS = {
    "an exact RST ends the connection": """
        open
        >> R 1
        ended RESET
        << nothing
    """,
    "a RST elsewhere in the window is challenged": """
        open
        >> R 100
        << A 1 ack 1
        state ESTABLISHED
    """,
    "a RST outside of the window is ignored": """
        open
        >> R 70000
        << nothing
        state ESTABLISHED
    """,
    "a SYN is challenged": """
        open
        >> S 1
        << A 1 ack 1
        >> S 40000
        << A 1 ack 1
        state ESTABLISHED
    """,
    "challenges are few": """
        open
        >> S 1
        >> S 1
        >> S 1
        >> S 1
        >> S 1
        >> S 1
        >> S 1
        >> S 1
        >> S 1
        >> S 1
        >> S 1
        >> S 1
        << A 1
        << A 1
        << A 1
        << A 1
        << A 1
        << A 1
        << A 1
        << A 1
        << A 1
        << A 1
        << nothing
        wait 6
        >> S 1
        << A 1
    """,
    "the host resets": """
        open
        host writes 100
        << PA 1:100
        abort
        << RA 101 ack 1
        ended ABORTED
        >> A 1 ack 101
        << R 101
    """,
    "nothing answers a RST to a connection that has ended": """
        open
        abort
        << RA 1 ack 1
        >> R 1
        << nothing
    """,
    "a RST ends a half-closed connection": """
        open
        >> FA 1 ack 1
        << A 1 ack 2
        >> R 2
        ended RESET
    """,
    "a RST ends TIME-WAIT": """
        open
        host ends
        << FA 1
        >> FA 1 ack 2
        << A 2 ack 2
        >> R 2
        ended RESET
    """,
}

ALL = OPENING | DATA | HOST | LOSS | CLOSING | RESETS


@pytest.mark.parametrize("title", ALL)
def test_conversation(title):
    Talk().play(ALL[title])


def test_there_are_enough_of_them():
    assert len(ALL) >= 60
