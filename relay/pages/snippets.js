// What to paste, for each kind of client.

/**
 * `page` is where this page is from, `relay` the URL of the room, `socket` that for emulators that know only a URL, and
 * `hash` the certificate's, or null where an authority stands for it.
 */
export function snippets({ page, relay, socket, hash }) {
  const options = hash === null ? "" : `, { certificateHash: "${hash}" }`;
  const flag = hash === null ? "" : `--cert-hash ${hash} `;
  const argument = hash === null ? "" : `, cert_hash="${hash}"`;
  return {
    example:
      `import { connect } from "${page}/client/index.js";\n\n` +
      `const nic = await connect("${relay}"${options});\n` +
      'console.log("address", nic.assigned.ip.join("."), "by", nic.carrier);',
    v86:
      `import { connectV86 } from "${page}/client/v86.js";\n\n` +
      'const emulator = new V86({ net_device: { type: "virtio" }, /* … */ });\n' +
      `await connectV86(emulator, "${relay}"${options});`,
    "v86-url": `net_device: { type: "virtio", relay_url: "${socket}" }`,
    qemu:
      `vmrelay attach --qemu /tmp/nic0 ${flag}${relay} &\n` +
      "until [ -S /tmp/nic0 ]; do sleep 0.1; done\n" +
      "qemu-system-x86_64 … -device virtio-net-pci,netdev=n0 \\\n" +
      "    -netdev stream,id=n0,server=off,addr.type=unix,addr.path=/tmp/nic0",
    tap: `sudo vmrelay attach --tap tap0 --configure ${flag}${relay}`,
    python:
      "import asyncio\n\nfrom vmrelay import vm_client\n\n\nasync def main():\n" +
      `    async with vm_client("${relay}"${argument}) as nic:\n` +
      '        print("address", nic.assigned.interface)\n' +
      "        async for frames in nic:\n" +
      '            print(len(frames), "frames")\n\n\nasyncio.run(main())',
    shell: `vmrelay shell ${flag}${relay}`,
  };
}
