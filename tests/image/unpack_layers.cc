// unpack_layers DIR BLOB...: unpacks layers, lowest first, into DIR/0, DIR/1, ... as a pull does,
// and prints one line for each: "ok <bytes> <entries>", or "<code>: <message>", which is the last.
#include <fcntl.h>

#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/image/decompress.h"
#include "driver/image/layer_dir.h"
#include "driver/image/unpack.h"

namespace jenkins_agent {
namespace {

// What a manifest and a config would say of the blob. Of what cannot be unpacked: nothing.
Descriptor Describe(int blob, Digest& diff_id) {
  FileSource file(blob);
  HashingSource packed(file, INT64_MAX - 1);
  const auto stream = Decompress(packed);
  if (stream.ok()) {
    HashingSource unpacked(**stream, kMaxLayerBytes);
    if (Drain(unpacked).ok()) diff_id = unpacked.Finish();
  }
  (void)Drain(packed);
  return {.media_type = "", .digest = packed.Finish(), .size = packed.bytes()};
}

absl::StatusOr<UnpackedLayer> Unpack(const std::string& blob, int layer) {
  ASSIGN_OR_RETURN(const Fd file, OpenFile(blob, O_RDONLY));
  Digest diff_id;
  const Descriptor descriptor = Describe(file.get(), diff_id);
  FileSource source(file.get());
  return UnpackLayer(source, descriptor, diff_id, layer);
}

absl::Status UnpackAll(const std::string& dir, const std::vector<std::string>& blobs) {
  std::vector<Fd> layers;
  for (const std::string& blob : blobs) {
    const std::string path = absl::StrCat(dir, "/", layers.size());
    RETURN_IF_ERROR(MakeDirs(path));
    ASSIGN_OR_RETURN(Fd layer, OpenFile(path, O_RDONLY | O_DIRECTORY));
    ASSIGN_OR_RETURN(const UnpackedLayer unpacked, Unpack(blob, layer.get()));
    std::vector<int> lowers;
    for (const Fd& lower : layers) lowers.insert(lowers.begin(), lower.get());
    RETURN_IF_ERROR(TakeAttributes(layer.get(), unpacked.invented_dirs, lowers));
    layers.push_back(std::move(layer));
    std::cout << "ok " << unpacked.bytes << " " << unpacked.entries << std::endl;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace jenkins_agent

int main(int argc, char** argv) {
  const absl::Status status = jenkins_agent::UnpackAll(argv[1], {argv + 2, argv + argc});
  if (status.ok()) return 0;
  std::cout << absl::StatusCodeToString(status.code()) << ": " << status.message() << std::endl;
  return 1;
}
