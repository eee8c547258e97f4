/**
 * `npm run generate`: writes the Protobuf code, the descriptor set that the relay reads, and the migrations that bring
 * each database to its `schema.ts`. `--check` changes nothing and names the files that are out of date. `--release`
 * records today's messages as released in `proto/released.binpb`: `npm run check` refuses changes that break them.
 */
import { cp, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { requireCommand } from "../run-command.ts";
import { serviceNames } from "../services.ts";

const root = join(import.meta.dir, "../../..");
const proto = join(root, "proto");

/** Generates into `proto/gen` and the services' `migrations`. */
async function generate(): Promise<void> {
  await generateProtobuf(join(proto, "gen"));
  for (const service of serviceNames) await generateMigrations(service, join(root, "services", service, "migrations"));
}

async function generateProtobuf(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  await requireCommand(["buf", "generate", "--output", join(folder, "..")], { folder: proto });
  await buildImage(join(folder, "descriptors.binpb"), ["--as-file-descriptor-set"]);
}

/** Writes the schema as one binary file. */
async function buildImage(file: string, options: readonly string[] = []): Promise<void> {
  await requireCommand(["buf", "build", "--exclude-source-info", ...options, "--output", file], { folder: proto });
}

async function generateMigrations(service: string, folder: string): Promise<void> {
  const schema = join(root, "services", service, "schema.ts");
  const out = relative(root, folder);
  await requireCommand(["drizzle-kit", "generate", "--dialect", "mysql", "--schema", schema, "--out", out], {
    folder: root,
  });
}

/** The files that `npm run generate` would change. */
async function outdatedFiles(): Promise<readonly string[]> {
  const folder = await mkdtemp(join(tmpdir(), "order-saga-generate-"));
  try {
    await generateProtobuf(join(folder, "gen"));
    const found = await differences(join(proto, "gen"), join(folder, "gen"), "proto/gen");
    for (const service of serviceNames) {
      const name = `services/${service}/migrations`;
      const copy = join(folder, service);
      await cp(join(root, name), copy, { recursive: true });
      await generateMigrations(service, copy);
      found.push(...(await differences(join(root, name), copy, name)));
    }
    return found;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function differences(current: string, fresh: string, name: string): Promise<string[]> {
  const [currentFiles, freshFiles] = await Promise.all([filesIn(current), filesIn(fresh)]);
  const found: string[] = [];
  for (const file of new Set([...currentFiles, ...freshFiles])) {
    const same =
      currentFiles.has(file) &&
      freshFiles.has(file) &&
      (await readFile(join(current, file))).equals(await readFile(join(fresh, file)));
    if (!same) found.push(`${name}/${file}`);
  }
  return found;
}

async function filesIn(folder: string): Promise<Set<string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return new Set(
    entries.filter((entry) => entry.isFile()).map((entry) => relative(folder, join(entry.parentPath, entry.name))),
  );
}

const { values } = parseArgs({ options: { check: { type: "boolean" }, release: { type: "boolean" } } });
if (values.check) {
  const files = await outdatedFiles();
  for (const file of files) console.error(`out of date: ${file}`);
  if (files.length > 0) {
    console.error("Run npm run generate and commit the result.");
    process.exit(1);
  }
} else {
  await generate();
  if (values.release) await buildImage(join(proto, "released.binpb"));
}
