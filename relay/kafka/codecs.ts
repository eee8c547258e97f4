/**
 * Decompresses record batches, in all codecs of Kafka: other clients compress as they like, and so may the topic itself
 * (`compression.type`). Our own producer does not compress.
 */
import { promisify } from "node:util";
import { gunzip, gzip, zstdDecompress } from "node:zlib";
import { uncompress } from "snappyjs";

/**
 * A batch that decompresses to more than this cannot be read. A few kilobytes may decompress to more than the process has
 * memory, and would end it again after each restart. Brokers accept a compressed batch of 1 MiB by default.
 */
export const decompressedBytesMax = 64 * 1024 * 1024;

/** A codec as kafkajs wants it. Errors make the batch unreadable. */
interface Codec {
  compress(encoder: { readonly buffer: Buffer }): Promise<Buffer>;
  decompress(compressed: Buffer): Promise<Buffer>;
}

const limit = { maxOutputLength: decompressedBytesMax };
const notCompressing = async (): Promise<never> => {
  throw new Error("Only gzip is implemented for sending.");
};

/** By the names of kafkajs's `CompressionTypes`. */
export const codecs = {
  GZIP: {
    compress: ({ buffer }) => promisify(gzip)(buffer),
    decompress: (compressed) => promisify(gunzip)(compressed, limit),
  },
  Snappy: { compress: notCompressing, decompress: async (compressed) => decompressSnappy(compressed) },
  LZ4: { compress: notCompressing, decompress: decompressLz4 },
  ZSTD: { compress: notCompressing, decompress: (compressed) => promisify(zstdDecompress)(compressed, limit) },
} as const satisfies Readonly<Record<string, Codec>>;

function assertFits(bytes: number): void {
  if (bytes > decompressedBytesMax) {
    throw new RangeError(`The batch decompresses to more than ${decompressedBytesMax} bytes.`);
  }
}

const xerialMagic = Buffer.from("\x82SNAPPY\0", "latin1");
/** The magic and two version numbers. */
const xerialHeaderBytes = 16;

/**
 * Java clients send blocks, each with its length before it (https://github.com/xerial/snappy-java, SnappyOutputStream).
 * Others send one block with nothing around it.
 */
function decompressSnappy(compressed: Buffer): Buffer {
  if (!compressed.subarray(0, xerialMagic.length).equals(xerialMagic)) {
    return Buffer.from(uncompress(compressed, decompressedBytesMax));
  }
  const blocks: Buffer[] = [];
  let bytes = 0;
  for (let at = xerialHeaderBytes; at < compressed.length; ) {
    const length = compressed.readUInt32BE(at);
    at += 4;
    const block = Buffer.from(uncompress(compressed.subarray(at, at + length), decompressedBytesMax));
    at += length;
    bytes += block.length;
    assertFits(bytes);
    blocks.push(block);
  }
  return Buffer.concat(blocks, bytes);
}

const lz4Magic = 0x184d2204;
const lz4Flag = { dictionary: 0x01, contentSize: 0x08, blockChecksum: 0x10 } as const;
const lz4UncompressedBlock = 0x80000000;

/**
 * The LZ4 frame format (https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md). The frame is read here, because lz4js
 * does not know all its flags and has no limits; only the blocks are decompressed there. Checksums are not verified.
 */
async function decompressLz4(compressed: Buffer): Promise<Buffer> {
  // Loaded when it is needed: it allocates 5 MB.
  const { decompressBlock } = await import("lz4js");
  if (compressed.readUInt32LE(0) !== lz4Magic) throw new Error("The batch is not an LZ4 frame.");
  const blocks = lz4Blocks(compressed);
  let bytesMax = 0;
  for (const block of blocks) bytesMax += block.bytesMax;
  // One more than the limit, so that what exceeds it is noticed.
  const output = Buffer.alloc(Math.min(bytesMax, decompressedBytesMax + 1));
  let end = 0;
  for (const { at, length, isCompressed } of blocks) {
    if (isCompressed) end = decompressBlock(compressed, output, at, length, end);
    else end += compressed.copy(output, end, at, at + length);
    assertFits(end);
  }
  if (end > output.length) throw new Error("A block of the LZ4 frame is larger than the frame says.");
  return output.subarray(0, end);
}

interface Lz4Block {
  readonly at: number;
  readonly length: number;
  readonly isCompressed: boolean;
  /** How large it may be when decompressed. */
  readonly bytesMax: number;
}

function lz4Blocks(frame: Buffer): readonly Lz4Block[] {
  const flags = frame.readUInt8(4);
  // 64 KiB, 256 KiB, 1 MiB or 4 MiB.
  const blockBytesMax = 2 ** (8 + 2 * ((frame.readUInt8(5) >> 4) & 7));
  let at = 7 + (flags & lz4Flag.contentSize ? 8 : 0) + (flags & lz4Flag.dictionary ? 4 : 0);
  const blocks: Lz4Block[] = [];
  for (;;) {
    const size = frame.readUInt32LE(at);
    at += 4;
    if (size === 0) return blocks;
    const isCompressed = size < lz4UncompressedBlock;
    const length = isCompressed ? size : size - lz4UncompressedBlock;
    if (at + length > frame.length) throw new Error("The LZ4 frame is cut off.");
    blocks.push({ at, length, isCompressed, bytesMax: isCompressed ? blockBytesMax : length });
    at += length + (flags & lz4Flag.blockChecksum ? 4 : 0);
  }
}
