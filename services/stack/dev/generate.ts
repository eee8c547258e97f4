/**
 * `npm run generate`: the Protobuf code, the descriptor set that the relay reads, and the migrations that bring the
 * database to each schema.ts. With `--check` nothing is changed, and what is not current is named.
 */
import { cp, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { requireCommand } from "../run-command.ts";
import { serviceNames } from "../services.ts";

const root = join(import.meta.dir, "../../..");

/** Generates into `proto/gen` and the services' `migrations`. */
async function generate(): Promise<void> {
  await generateProtobuf(join(root, "proto/gen"));
  for (const service of serviceNames) await generateMigrations(service, join(root, "services", service, "migrations"));
}

async function generateProtobuf(folder: string): Promise<void> {
  const proto = join(root, "proto");
  await rm(folder, { recursive: true, force: true });
  await requireCommand(["buf", "generate", "--output", join(folder, "..")], { folder: proto });
  const descriptors = join(folder, "descriptors.binpb");
  await requireCommand(["buf", "build", "--as-file-descriptor-set", "--exclude-source-info", "--output", descriptors], {
    folder: proto,
  });
}

async function generateMigrations(service: string, folder: string): Promise<void> {
  const schema = join(root, "services", service, "schema.ts");
  const out = relative(root, folder);
  await requireCommand(["drizzle-kit", "generate", "--dialect", "mysql", "--schema", schema, "--out", out], {
    folder: root,
  });
}

/** The files that generating anew would change. */
async function outdated(): Promise<readonly string[]> {
  const folder = await mkdtemp(join(tmpdir(), "order-saga-generate-"));
  try {
    await generateProtobuf(join(folder, "gen"));
    const found = await differences(join(root, "proto/gen"), join(folder, "gen"), "proto/gen");
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

if (process.argv.includes("--check")) {
  const files = await outdated();
  for (const file of files) console.error(`not current: ${file}`);
  if (files.length > 0) {
    console.error("Run npm run generate, and commit what it writes.");
    process.exit(1);
  }
} else {
  await generate();
}
