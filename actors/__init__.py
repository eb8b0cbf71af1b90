"""pykka actors of the relay: peers, the switch, the gateway and its flows."""
