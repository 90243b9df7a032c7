//! Where the data sets are at home.
//!
//! Sizes and SHA-256 are those of TensorFlow Datasets
//! (<https://github.com/tensorflow/datasets>, `tensorflow_datasets/url_checksums`).

use crate::data::locate::{FASHION, KMNIST};

/// A file at a set's home.
pub(super) struct Remote {
    pub name: &'static str,
    pub size: u64,
    pub sha256: &'static str,
}

/// What is in the files.
pub(super) enum Content {
    /// The set's own files.
    Plain,
    /// A gzipped tar with these files.
    TarGz(&'static [&'static str]),
    /// A zip of EMNIST's splits, each of which gets a folder.
    EmnistZip,
}

/// A data set that can be fetched.
pub(super) struct Source {
    pub name: &'static str,
    pub base: &'static str,
    pub files: &'static [Remote],
    pub content: Content,
    pub classes: Option<&'static [&'static str]>,
}

const fn remote(name: &'static str, size: u64, sha256: &'static str) -> Remote {
    Remote { name, size, sha256 }
}

pub(super) const SOURCES: &[Source] = &[
    Source {
        name: "mnist",
        base: "https://storage.googleapis.com/cvdf-datasets/mnist/",
        files: &[
            remote(
                "train-images-idx3-ubyte.gz",
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            remote(
                "train-labels-idx1-ubyte.gz",
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            remote(
                "t10k-images-idx3-ubyte.gz",
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            remote(
                "t10k-labels-idx1-ubyte.gz",
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ],
        content: Content::Plain,
        classes: None,
    },
    Source {
        name: "fashion-mnist",
        // The repository of its authors; their bucket serves no HTTPS.
        base: "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        files: &[
            remote(
                "train-images-idx3-ubyte.gz",
                26_421_880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            remote(
                "train-labels-idx1-ubyte.gz",
                29_515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            remote(
                "t10k-images-idx3-ubyte.gz",
                4_422_102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            remote(
                "t10k-labels-idx1-ubyte.gz",
                5_148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ],
        content: Content::Plain,
        classes: Some(&FASHION),
    },
    Source {
        name: "kmnist",
        base: "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        files: &[
            remote(
                "train-images-idx3-ubyte.gz",
                18_165_135,
                "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            ),
            remote(
                "train-labels-idx1-ubyte.gz",
                29_497,
                "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            ),
            remote(
                "t10k-images-idx3-ubyte.gz",
                3_041_136,
                "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            ),
            remote(
                "t10k-labels-idx1-ubyte.gz",
                5_120,
                "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
            ),
        ],
        content: Content::Plain,
        classes: Some(&KMNIST),
    },
    Source {
        name: "emnist",
        base: "https://biometrics.nist.gov/cs_links/EMNIST/",
        files: &[remote(
            "gzip.zip",
            561_753_746,
            "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
        )],
        content: Content::EmnistZip,
        classes: None,
    },
    Source {
        name: "cifar10",
        base: "https://www.cs.toronto.edu/~kriz/",
        files: &[remote(
            "cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        )],
        content: Content::TarGz(&[
            "data_batch_1.bin",
            "data_batch_2.bin",
            "data_batch_3.bin",
            "data_batch_4.bin",
            "data_batch_5.bin",
            "test_batch.bin",
            "batches.meta.txt",
        ]),
        classes: None,
    },
    Source {
        name: "cifar100",
        base: "https://www.cs.toronto.edu/~kriz/",
        files: &[remote(
            "cifar-100-binary.tar.gz",
            168_513_733,
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        )],
        content: Content::TarGz(&[
            "train.bin",
            "test.bin",
            "fine_label_names.txt",
            "coarse_label_names.txt",
        ]),
        classes: None,
    },
];
