// Is what the store holds still what was put there? An unpacked layer has no digest of its image
// any more: at the pull, when its content had been checked against that, the digest of its
// directory (tree_tar.h) was noted, and is compared here. It finds what a disk, a power cut or
// somebody's hand changed; who can write the store can write the notes, too.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "driver/image/store.h"

namespace jenkins_agent {

enum class LayerState {
  kIntact,
  kDamaged,  // `why` says it
  kUnknown,  // nothing was noted when it was pulled: by a version that did not
  kGone,     // removed meanwhile
};

struct LayerVerdict {
  LayerState state = LayerState::kIntact;
  std::string why;
};

// Reads the whole layer. Changes nothing.
LayerVerdict VerifyLayer(const Store& store, const StoredLayer& layer);

}  // namespace jenkins_agent
