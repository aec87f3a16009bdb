// One layer: a compressed tar stream becomes a directory, in one pass and with nothing staged. Each
// byte is hashed as it came and as it was unpacked; the directory is to be used only when both
// digests are the expected ones, that is when UnpackLayer returned.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "driver/image/byte_source.h"
#include "driver/image/content_sum.h"
#include "driver/image/digest.h"
#include "driver/image/manifest.h"

namespace jenkins_agent {

inline constexpr int64_t kMaxLayerBytes = int64_t{10} << 30;  // unpacked

struct UnpackedLayer {
  int64_t bytes = 0;  // of the tar stream
  int64_t entries = 0;
  std::vector<std::string> invented_dirs;  // LayerDir::InventedDirs
  FileSums sums;                           // of its files
};

// `root`: an empty directory out of reach of others; it stays the caller's, who removes what is in
// it after an error. `blob` must outlive the call. DataLoss: a digest is not the expected one.
// InvalidArgument, OutOfRange, Unimplemented: the layer cannot be used. Others: source or disk.
absl::StatusOr<UnpackedLayer> UnpackLayer(ByteSource& blob, const Descriptor& layer,
                                          const Digest& diff_id, int root);

}  // namespace jenkins_agent
