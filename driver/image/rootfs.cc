#include "driver/image/rootfs.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/image/decompress.h"
#include "driver/image/image_files.h"
#include "driver/image/json.h"
#include "driver/image/made_manifest.h"
#include "driver/image/manifest.h"
#include "driver/image/tree_tar.h"
#include "driver/image/unpack.h"

namespace jenkins_agent {
namespace {

std::string ConfigText(const Digest& diff_id) {
  const Platform host = HostPlatform();
  return Json({{"os", host.os},
               {"architecture", host.architecture},
               {"rootfs", {{"type", "layers"}, {"diff_ids", {diff_id.ToString()}}}}})
      .dump();
}

absl::StatusOr<std::unique_ptr<ImageSource>> Open(LocalLayer layer) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> blob, layer.open());
  HashingSource packed(*blob, kMaxBlobBytes);
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> stream, Decompress(packed));
  HashingSource unpacked(*stream, kMaxLayerBytes);
  RETURN_IF_ERROR(Drain(unpacked));
  RETURN_IF_ERROR(Drain(packed));
  layer.digest = packed.Finish();
  layer.size = packed.bytes();
  return MakeSourceWithManifest(ConfigText(unpacked.Finish()), {std::move(layer)});
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageSource>> OpenRootfs(const std::string& path) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) != 0) return ErrnoStatus(path);
  LocalLayer layer;
  if (S_ISDIR(info.st_mode)) {
    layer.open = [path]() -> absl::StatusOr<std::unique_ptr<ByteSource>> {
      ASSIGN_OR_RETURN(Fd root, OpenFile(path, O_RDONLY | O_DIRECTORY));
      return TarOfTree(std::move(root));
    };
  } else if (S_ISREG(info.st_mode)) {
    layer.open = [path] { return OpenFileSource(path); };
  } else {
    return absl::InvalidArgumentError(absl::StrCat(path, " is no directory and no file"));
  }
  absl::StatusOr<std::unique_ptr<ImageSource>> source = Open(std::move(layer));
  if (!source.ok()) return Annotate(source.status(), path);
  return source;
}

}  // namespace jenkins_agent
