// Compiles what users write against the packed archive, with old and new versions of TypeScript.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const packed = join(here, "../../.pack");
const { devDependencies } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
const versions = Object.keys(devDependencies).filter((name) => name.startsWith("typescript-"));

/** How projects find packages; TypeScript 6 gives the oldest way up. */
const setups = [
  { name: "node16", until: "9", options: { module: "node16", moduleResolution: "node16" } },
  { name: "bundler", until: "9", options: { module: "esnext", moduleResolution: "bundler" } },
  { name: "node10", until: "5.9", options: { module: "esnext", moduleResolution: "node" } },
];
/** Which files, and the types that are there besides the language's. */
const programs = [
  { file: "browser.ts", lib: ["es2022", "dom", "dom.iterable"] },
  { file: "plain.ts", lib: ["es2022"] },
];

let folder;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "vmrelay-types-"));
  const modules = join(folder, "node_modules");
  mkdirSync(join(modules, "vmrelay-client"), { recursive: true });
  const archives = readdirSync(packed).filter((name) => name.endsWith(".tgz"));
  assert.equal(archives.length, 1, "npm run package makes the archive");
  const unpacked = spawnSync("tar", ["-xzf", join(packed, archives[0]), "-C", join(modules, "vmrelay-client"), "--strip-components=1"]);
  assert.equal(unpacked.status, 0, String(unpacked.stderr));
  symlinkSync(join(here, "node_modules/v86"), join(modules, "v86"));
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  for (const { file } of programs) copyFileSync(join(here, file), join(folder, file));
});
after(() => rmSync(folder, { recursive: true }));

for (const version of versions) {
  for (const { name, until, options } of setups) {
    if (version.localeCompare(`typescript-${until}`) > 0) continue;
    for (const { file, lib } of programs) {
      test(`${file} compiles with ${version}, resolving as ${name}`, () => {
        const project = join(folder, `${version}-${name}-${file}.json`);
        const compilerOptions = { ...options, lib, target: "es2022", types: [], strict: true, skipLibCheck: false, exactOptionalPropertyTypes: true, noEmit: true };
        writeFileSync(project, JSON.stringify({ compilerOptions, files: [file] }));
        const compiler = join(here, "node_modules", version, "bin/tsc");
        const { status, stdout, stderr } = spawnSync(process.execPath, [compiler, "-p", project], { encoding: "utf8" });
        assert.equal(status, 0, stdout + stderr);
      });
    }
  }
}
