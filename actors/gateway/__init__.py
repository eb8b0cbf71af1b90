"""The gateway: addresses, ARP, ICMP, DHCP, DNS, and the routing of flows."""
