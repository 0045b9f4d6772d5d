"""The catalogue of a release."""

from rolecall.pipelines.knowledge import catalogue_as_of as catalogue_as_of
