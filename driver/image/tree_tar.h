// A directory as the tar stream of one layer: PAX (POSIX.1-2001), entries in the order of their
// names, so that the same tree is the same stream.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "driver/base/fd.h"
#include "driver/image/byte_source.h"

namespace jenkins_agent {

// Which extended attributes are in it: those that layers may have, or also overlayfs' own of a
// layer in the store.
enum class TreeXattrs { kOfLayers, kOfStore };

// Stays on the file system of the directory `root`; what is mounted below is an empty directory.
// Sockets are left out. Errors of Read name the path; Aborted: a file was shorter than when it was
// found.
absl::StatusOr<std::unique_ptr<ByteSource>> TarOfTree(Fd root, TreeXattrs xattrs);

// Of the stream of a layer's directory in the store: paths, content, owners, modes, times, links,
// devices and attributes. What is damaged has another one.
absl::StatusOr<Digest> DigestOfTree(Fd root);

}  // namespace jenkins_agent
