#include "driver/image/unpack.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "driver/image/decompress.h"
#include "driver/image/layer_dir.h"
#include "driver/image/tar.h"

namespace jenkins_agent {
namespace {

absl::Status CheckDigest(absl::string_view what, const Digest& found, const Digest& wanted) {
  if (found == wanted) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(what, " has the digest ", found.ToString(), ", not ", wanted.ToString()));
}

absl::Status WriteEntries(ByteSource& stream, LayerDir& dir) {
  TarReader tar(stream);
  TarEntry entry;
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, tar.Next(entry));
    if (!more) return dir.Finish();
    RETURN_IF_ERROR(dir.Add(entry, tar));
  }
}

}  // namespace

absl::StatusOr<UnpackedLayer> UnpackLayer(ByteSource& blob, const Descriptor& layer,
                                          const Digest& diff_id, int root) {
  HashingSource packed(blob, layer.size);
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> stream, Decompress(packed));
  HashingSource unpacked(*stream, kMaxLayerBytes);
  LayerDir dir(root);
  RETURN_IF_ERROR(WriteEntries(unpacked, dir));
  // Behind the archive's end there may be more, which belongs to the digests.
  RETURN_IF_ERROR(Drain(unpacked));
  RETURN_IF_ERROR(Drain(packed));
  if (packed.bytes() < layer.size) {
    return absl::DataLossError(absl::StrCat("has ", packed.bytes(), " bytes, not ", layer.size));
  }
  RETURN_IF_ERROR(CheckDigest("it", packed.Finish(), layer.digest));
  RETURN_IF_ERROR(CheckDigest("what it unpacks to", unpacked.Finish(), diff_id));
  return UnpackedLayer{.bytes = unpacked.bytes(),
                       .entries = dir.entries(),
                       .invented_dirs = dir.InventedDirs(),
                       .sums = dir.TakeSums()};
}

}  // namespace jenkins_agent
