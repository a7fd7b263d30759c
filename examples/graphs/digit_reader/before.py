"""An encoded image, dark on light or light on dark, becomes the 8x8 pixels that the model reads."""

import cv2
import numpy as np
from pyovms import Tensor


class OvmsPythonModel:
    def initialize(self, kwargs):
        self.output = kwargs["output_names"][0]

    def execute(self, inputs):
        # BYTES come as they are on the wire: the length of the element in 4 bytes, then the file.
        file = np.frombuffer(inputs[0], np.uint8)[4:]
        image = cv2.imdecode(file, cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise ValueError("no image that can be decoded")
        if np.median(image) > 127:
            image = 255 - image
        image = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA)
        return [Tensor(self.output, image.astype(np.float32)[np.newaxis, :, :, np.newaxis])]
