// A directory as the tar stream of one layer: PAX (POSIX.1-2001), entries in the order of their
// names, so that the same tree is the same stream.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "driver/base/fd.h"
#include "driver/image/byte_source.h"
#include "driver/image/content_sum.h"

namespace jenkins_agent {

// Stays on the file system of the directory `root`; what is mounted below is an empty directory.
// Sockets are left out. Errors of Read name the path; Aborted: a file was shorter than when it was
// found.
absl::StatusOr<std::unique_ptr<ByteSource>> TarOfTree(Fd root);

// Of a layer's directory in the store: paths, checksums of contents, owners, modes, times, links,
// devices and attributes, overlayfs' own too. What is damaged has another one. The files of `known`
// are not read: their contents are taken for what was written.
absl::StatusOr<Digest> DigestOfTree(Fd root, const FileSums& known);

}  // namespace jenkins_agent
