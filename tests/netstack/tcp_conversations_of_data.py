"""What is said while data flow, and when some of it gets lost; how to read it stands in tcp_talk."""

SHUT = """
    open mss 1000
    host is slow
    host has room 0
    >> A 1:30000 ack 1 | A 30001:35535 ack 1
    << A 1 ack 1
    host takes 65535
    << A 1 ack 65536 win 0
    window 0
"""
"""The guest has used our window up, and the host takes nothing more."""

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
    "a guest's MSS may be small": """
        open mss 48
        host writes 100
        << A 1:48
        << A 49:48
        << PA 97:4
    """,
    "below any packet's size it is that of the smallest": """
        open mss 1
        host writes 30
        << A 1:28
        << PA 29:2
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
        << A 1 ack 1 sack 5001-5101,3001-3101,1001-1101
        >> A 1101:100 ack 1
        << A 1 ack 1 sack 1001-1201,5001-5101,3001-3101
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
    "keep-alives are answered for ever": "open\n"
    + """
        >> A 0 ack 1
        << A 1 ack 1
        wait 5
    """
    * 30,
    "bare ACKs outside of the window are answered only so often": "open\n"
    + ">> A 70001 ack 1\n" * 25
    + ">> A -1000 ack 1\n" * 25
    + "<< A 1 ack 1\n" * 10
    + """
        << nothing
        wait 5
        >> A 70001 ack 1
        << A 1 ack 1
        << nothing
    """,
    "what is sent again is answered however often": "open mss 1000\n"
    + """
        >> A 1:100 ack 1
        << A 1 ack 101
    """
    * 30,
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
    "a probe of our closed window acknowledges": SHUT
    + """
        host writes 500
        << PA 1:500 ack 65536
        >> A 65536:1 ack 501
        << A 501 ack 65536 win 0
        wait 1
        << nothing
        host got 65535
    """,
    "so does a bare ACK one beyond it": SHUT
    + """
        host writes 500
        << PA 1:500 ack 65536
        >> A 65537 ack 501
        wait 1
        << nothing
        host writes 500
        << PA 501:500 ack 65536
    """,
    "and opens the guest's window": SHUT
    + """
        >> A 65536 ack 1 win 0
        host writes 1500
        << nothing
        >> A 65536:1 ack 1 win 1000
        << A 1:1000 ack 65536
        << nothing
        >> A 65537 ack 1001 win 1000
        << PA 1001:500 ack 65536
    """,
    "so do duplicate ACKs from there, but no probes": SHUT
    + """
        host writes 3000
        << A 1:1000
        << A 1001:1000
        << PA 2001:1000
        >> A 65536:1 ack 1
        << A 3001 ack 65536
        >> A 65536:1 ack 1
        << A 3001 ack 65536
        >> A 65536:1 ack 1
        << A 3001 ack 65536
        << nothing
        >> A 65537 ack 1
        >> A 65537 ack 1
        << nothing
        >> A 65537 ack 1
        << A 1:1000 ack 65536
    """,
    "and what a guest says before that byte counts after it": SHUT
    + """
        >> A 65536:1 ack 1 win 0 | A 65537 ack 1 win 0
        << A 1 ack 65536 win 0
        host writes 500
        wait 0.1
        host has room 65535
        << A 1 ack 65536 win 65535
        >> A 65536:1 ack 1 win 1000
        << PA 1:500 ack 65536
    """,
    "a FIN waits for the window to open": SHUT
    + """
        >> FA 65536 ack 1
        << A 1 ack 65536 win 0
        state ESTABLISHED
        host has room 65535
        << A 1 ack 65536 win 65535
        >> FA 65536 ack 1
        << A 1 ack 65537
        state CLOSE_WAIT
    """,
    "what is sent again tells of the guest's window": """
        open mss 1000
        >> A 1:100 ack 1 win 0
        << A 1 ack 101
        host writes 500
        << nothing
        >> A 1:100 ack 1 win 1000
        << PA 1:500 ack 101
    """,
    "but not from farther beyond it, nor what was never sent": SHUT
    + """
        host writes 500
        << PA 1:500 ack 65536
        >> A 65538 ack 501
        << A 501 ack 65536
        >> A 65536:1 ack 502
        << A 501 ack 65536
        wait 0.3
        << PA 1:500 ack 65536
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
    "an ACK that a repeated segment has brought measures no round trip": """
        open mss 1000
        host writes 2000
        << A 1:1000
        << PA 1001:1000
        wait 0.25                     # the guest has both, and its ACKs are lost
        << PA 1:1000
        wait 0.5
        << PA 1:1000
        wait 0.5
        >> A 1 ack 2001
        host writes 1000
        << PA 2001:1000
        wait 0.35
        << PA 2001:1000
    """,
    "nor does a SACK behind a time-out": """
        open mss 1000 sackok
        host writes 2000
        << A 1:1000
        << PA 1001:1000
        wait 0.25
        << PA 1:1000
        wait 0.5
        << PA 1:1000
        wait 0.5
        >> A 1 ack 1 sack 1001-2001
        >> A 1 ack 2001
        host writes 1000
        << PA 2001:1000
        wait 0.35
        << PA 2001:1000
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
