// What the results of the test mean, in plain words.


import { REFUSED } from "/network.js";

/**
 * `results` has, by the name of each step, null where it went well, the reason where it did not, and undefined where it
 * was not tried. Gives sentences, each with whether it is good.
 */
export function verdict(results, { port, target, hasWebTransport }) {
  const said = [carriers(results, port, hasWebTransport)];
  if (results.connect !== null) return said;
  said.push(lan(results));
  if (results.gateway !== null || results.ping !== null) return said;
  said.push(...outside(results, target), ...ipv6(results));
  return said;
}

function carriers({ webtransport, websocket }, port, hasWebTransport) {
  if (webtransport === null && websocket === null) return good("Both carriers get through, WebTransport over UDP and WebSocket over TCP.");
  if (webtransport === null) {
    return bad("WebTransport gets through and WebSocket does not: a proxy on the way, or the browser for want of trust in the certificate, stops it. Emulators that know only a URL cannot connect from here.");
  }
  if (websocket !== null) return bad(`Neither carrier gets through: ${websocket}.`);
  if (!hasWebTransport) return good("This browser has no WebTransport, and uses WebSocket over TCP: slower where packets are lost.");
  return bad(`Only WebSocket gets through: a firewall on the way eats UDP port ${port}. It works all the same, slower where packets are lost.`);
}

function lan({ gateway, ping }) {
  if (gateway === null && ping === null) return good("The LAN works: its gateway answers.");
  return bad("There is a session, but the LAN's gateway does not answer. The relay's own log says which frames it drops, and why.");
}

function outside({ resolve, tcp, echo }, { name, port }) {
  if (resolve !== null) return [bad(`The name ${name} was not found (${resolve}). Without the relay's name server guests reach only addresses.`)];
  const said = [tcpOut(tcp, name, port)];
  if (echo === null) said.push(good(`Pings get out: ${name} answers.`));
  else if (tcp === null || tcp === REFUSED) said.push(bad(`TCP gets out but pings do not (${echo}): the relay's machine lets nobody ping, which vmrelay doctor tells there, or a firewall eats ICMP.`));
  else said.push(bad(`Pings of ${name}: ${echo}.`));
  return said;
}

function tcpOut(reason, name, port) {
  if (reason === null) return good(`TCP gets out: ${name} answers at port ${port}.`);
  if (reason === REFUSED) return good(`TCP gets out: ${name} answers, but nothing listens at its port ${port}.`);
  const silence = reason.startsWith("no answer") ? "; a firewall behind the relay eats it, or nobody is there" : "";
  return bad(`TCP to ${name} port ${port}: ${reason}${silence}.`);
}

function ipv6({ ipv6: found, route, ipv6Out }) {
  if (found !== null) return [bad(`There is no IPv6 on this LAN (${found}); guests use IPv4.`)];
  if (route !== null) return [good("IPv6 works on the LAN. The relay's machine has no way to the IPv6 internet, so guests use IPv4 there.")];
  if (ipv6Out === undefined) return [good("IPv6 works on the LAN, and there is a way out; the name has no IPv6 address to try it with.")];
  return [ipv6Out === null || ipv6Out === REFUSED ? good("IPv6 works on the LAN, and gets out.") : bad(`IPv6 works on the LAN and does not get out: ${ipv6Out}.`)];
}

const good = (text) => ({ text, kind: "good" });
const bad = (text) => ({ text, kind: "bad" });
