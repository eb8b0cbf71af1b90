"""What is said when a connection begins and when it ends; how to read it stands in tcp_talk."""

from tcp_conversations_of_data import SHUT

NEXT = "\n"

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
    "however often a SYN is repeated, the attempt is not given up for that": f"""
        {NEXT.join([">> S 0", "<< SA 0 ack 1"] * 11)}
        >> S 0 | S 0 | S 0
        << nothing
        wait 1.1
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
        << A 1 ack 1                  # at once
        << nothing
        >> R 1                        # as a guest that has begun anew says to that
        ended RESET
    """,
    "a RST within the window of a handshake is challenged": """
        >> S 0
        << SA 0 ack 1
        >> R 2
        << A 1 ack 1
        state SYN_RECEIVED
        >> R 70000
        << nothing
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
    "the end waits until the host has taken everything": """
        open
        host is slow
        >> FA 1:100 ack 1
        << A 1 ack 1
        host ends
        << FA 1 ack 1
        >> A 102 ack 2
        state LAST_ACK
        host takes 100
        << A 2 ack 102
        ended FINISHED
        host got 100
    """,
    "so does TIME-WAIT": """
        open
        host is slow
        host ends
        << FA 1
        >> A 1 ack 2
        >> FA 1:100 ack 2
        << A 2 ack 1
        wait 15
        state TIME_WAIT
        host takes 100
        << A 2 ack 102
        wait 11
        ended FINISHED
    """,
    "the host's RST comes when the guest has everything": """
        open mss 1000
        >> A 1 ack 1 win 1000
        host writes 1500
        << A 1:1000
        host resets
        << nothing
        >> A 1 ack 1001 win 1000
        << PA 1001:500
        << nothing
        state ESTABLISHED
        >> A 1 ack 1501
        << RA 1501 ack 1
        ended ABORTED
    """,
    "the host's RST comes at once when nothing is under way": """
        open
        host resets
        << RA 1 ack 1
        ended ABORTED
    """,
    "the host's RST comes behind its FIN": """
        open
        host writes 10
        << PA 1:10
        host ends
        << FA 11
        host resets
        << nothing
        >> A 1 ack 12
        << RA 12 ack 1
        ended ABORTED
    """,
    "a host that resets may have to send again before": """
        open
        host writes 10
        << PA 1:10
        host resets
        wait 0.3
        << PA 1:10
        >> A 1 ack 11
        << RA 11 ack 1
    """,
    "the host goes on after a FIN that has used the window up": """
        open mss 1000
        host has room 0
        >> A 1:30000 ack 1 win 1000 | FA 30001:35535 ack 1 win 1000
        << A 1 ack 65537 win 0
        state CLOSE_WAIT
        host writes 3000
        << A 1:1000
        << nothing
        >> A 65537 ack 1001 win 1000
        << A 1001:1000
        >> A 65537 ack 2001 win 1000
        << PA 2001:1000
        >> A 65537 ack 3001
        host ends
        << FA 3001
        >> A 65537 ack 3002
        ended FINISHED
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
    "a RST at the number that was acknowledged counts while data are held": """
        open
        host is slow
        >> A 1:1000 ack 1
        << A 1 ack 1
        >> R 1
        ended RESET
    """,
    "a RST between what was acknowledged and what has come is challenged": """
        open
        host is slow
        >> A 1:1000 ack 1
        << A 1 ack 1
        >> R 500
        << A 1 ack 1
        state ESTABLISHED
        >> R 1001
        ended RESET
    """,
    "a RST of what was acknowledged before is ignored": """
        open
        >> A 1:1000 ack 1
        << A 1 ack 1001
        >> R 1
        >> R 1000
        << nothing
        state ESTABLISHED
    """,
    "a RST outside of the window is ignored": """
        open
        >> R 70000
        << nothing
        state ESTABLISHED
    """,
    "a RST where a guest stands that has probed our closed window is challenged": SHUT
    + """
        >> R 65538
        << nothing
        >> R 65537
        << A 1 ack 65536
        state ESTABLISHED
        >> R 65536
        ended RESET
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
