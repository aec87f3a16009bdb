// gzip, zstd or nothing, told apart by the first bytes: registries hold blobs whose media type
// lies.
//
// gzip is unpacked by ISA-L (2.3 times as fast as zlib) when the node has libisal.so.2, else by
// zlib.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "driver/image/byte_source.h"

namespace jenkins_agent {

// zstd frames that want a larger window than 2^27 bytes are refused, as the zstd program does.
inline constexpr int kMaxZstdWindowLog = 27;
// From this many unpacked bytes on, more than kMaxRatio times the packed ones is a bomb.
inline constexpr int64_t kRatioFreeBytes = 64 << 20;
inline constexpr int64_t kMaxRatio = 200;

enum class GzipLibrary { kBest, kZlib };

// Looks for ISA-L now and not when the first gzip stream begins: before a change of the root.
void LoadGzipLibrary();

// What `packed`, which must outlive the result, unpacks to. A stream of several gzip members or
// zstd frames is read to its end. Its errors are InvalidArgument (damaged, cut) and OutOfRange (a
// bomb).
absl::StatusOr<std::unique_ptr<ByteSource>> Decompress(ByteSource& packed,
                                                       GzipLibrary library = GzipLibrary::kBest);

// Whether what `stream`, which stands at its beginning, holds is gzip or zstd. Reads some bytes.
absl::StatusOr<bool> IsCompressed(ByteSource& stream);

}  // namespace jenkins_agent
